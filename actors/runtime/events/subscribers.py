"""``Subscribers``: the event queues of all subscriptions, by pod and kind."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Generic

from actors.runtime.events.event_queue import EventQueue, Q
from protocol.events import TRANSIENT_EVENTS, Event, Lagged

#: What is made only for subscribers; ``Lagged`` comes from the queue itself.
_TRANSIENT: frozenset[type[Event]] = frozenset(TRANSIENT_EVENTS) - {Lagged}


class Group(Generic[Q]):
    """The open queues of one pod or of all, in the order they were made; adding and removing cost the same
    however many there are. ``kind_counts`` counts how many want each transient kind.
    """

    __slots__ = ("kind_counts", "order", "queues")

    def __init__(self) -> None:
        self.queues: dict[EventQueue[Q], None] = {}
        #: What publishing goes through: exchanged, never changed. None: to be made anew.
        self.order: tuple[EventQueue[Q], ...] | None = ()
        self.kind_counts: dict[type[Event], int] = {}

    def add(self, queue: EventQueue[Q]) -> None:
        self.queues[queue] = None
        self.order = None
        for kind in _transient(queue.kinds):
            self.kind_counts[kind] = self.kind_counts.get(kind, 0) + 1

    def remove(self, queue: EventQueue[Q]) -> None:
        """Forget a queue; one that is not there is ignored."""
        if queue not in self.queues:
            return
        del self.queues[queue]
        self.order = None
        for kind in _transient(queue.kinds):
            self.kind_counts[kind] -= 1
            if not self.kind_counts[kind]:
                del self.kind_counts[kind]


class Subscribers(Generic[Q]):
    """Who wants events in one form. Changed and iterated over only under the lock of its bus."""

    __slots__ = ("empty", "of_all", "of_pod")

    def __init__(self) -> None:
        self.of_all: Group[Q] = Group()
        self.of_pod: dict[str, Group[Q]] = {}
        self.empty = True

    def add(self, queue: EventQueue[Q]) -> None:
        group = self.of_all if queue.pod is None else self.of_pod.setdefault(queue.pod, Group())
        group.add(queue)
        self.empty = False

    def add_child(self, child: str, parent: str) -> None:
        """Subscribers to ``parent`` and its sub-agents get the events of ``child`` too."""
        group = self.of_pod.get(parent)
        for queue in () if group is None else list(group.queues):
            if queue.children is not None:
                self.join(queue, child)

    def join(self, queue: EventQueue[Q], child: str) -> None:
        """Have an existing queue get the events of a sub-agent too."""
        assert queue.children is not None
        queue.children.add(child)
        self.of_pod.setdefault(child, Group()).add(queue)

    def drop_child(self, child: str) -> None:
        """Note that a sub-agent has ended: events under its name then go only to subscribers to that name."""
        group = self.of_pod.get(child)
        for queue in () if group is None else list(group.queues):
            if queue.children is not None and queue.pod != child:
                queue.children.discard(child)
                self._leave(queue, child)

    def remove(self, queue: EventQueue[Q]) -> None:
        """Forget a queue; one that is not there is ignored."""
        if queue.pod is None:
            self.of_all.remove(queue)
        else:
            self._leave(queue, queue.pod)
            for child in queue.children or ():
                self._leave(queue, child)
        self._refresh()

    def _leave(self, queue: EventQueue[Q], pod: str) -> None:
        group = self.of_pod.get(pod)
        if group is not None:
            group.remove(queue)
            if not group.queues:
                del self.of_pod[pod]

    def _refresh(self) -> None:
        self.empty = not self.of_all.queues and not self.of_pod

    def transient_kinds(self, pod: str) -> Iterator[type[Event]]:
        """The transient kinds of ``pod`` that have a subscriber."""
        yield from self.of_all.kind_counts
        if (group := self.of_pod.get(pod)) is not None:
            yield from group.kind_counts

    def wants(self, pod: str, kind: type[Event]) -> bool:
        """Whether anybody has asked for such events of ``pod``, including durable ones."""
        groups = (self.of_all, self.of_pod.get(pod))
        return any(kind in queue.kinds for group in groups if group is not None for queue in group.queues)

    def queues(self) -> list[EventQueue[Q]]:
        groups = (self.of_all, *self.of_pod.values())
        return list(dict.fromkeys(queue for group in groups for queue in group.queues))


@lru_cache(maxsize=64)
def _transient(kinds: frozenset[type[Event]]) -> frozenset[type[Event]]:
    return _TRANSIENT & kinds
