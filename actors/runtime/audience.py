"""``Audience``: the event queues of all subscribers, by pod."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Generic

from actors.runtime.event_queue import EventQueue, Q
from protocol.events import TRANSIENT_EVENTS, Event, Lagged

#: What only subscribers make worth telling; ``Lagged`` comes from the queue itself.
_ONLY_TOLD: frozenset[type[Event]] = frozenset(TRANSIENT_EVENTS) - {Lagged}


class Group(Generic[Q]):
    """The open queues of one pod or of all, in the order of their making; to add and to remove one costs
    the same however many there are. ``heard`` counts who hears which transient kind.
    """

    __slots__ = ("heard", "order", "queues")

    def __init__(self) -> None:
        self.queues: dict[EventQueue[Q], None] = {}
        #: What publishing goes through: exchanged, never changed. None: to be made anew.
        self.order: tuple[EventQueue[Q], ...] | None = ()
        self.heard: dict[type[Event], int] = {}

    def add(self, queue: EventQueue[Q]) -> None:
        self.queues[queue] = None
        self.order = None
        for kind in _transient(queue.kinds):
            self.heard[kind] = self.heard.get(kind, 0) + 1

    def remove(self, queue: EventQueue[Q]) -> None:
        """Forget a queue; one that is not there is let be."""
        if queue not in self.queues:
            return
        del self.queues[queue]
        self.order = None
        for kind in _transient(queue.kinds):
            self.heard[kind] -= 1
            if not self.heard[kind]:
                del self.heard[kind]


class Audience(Generic[Q]):
    """Who wants events in one form. To be changed, and gone through, under the lock of its bus."""

    __slots__ = ("empty", "of_all", "of_pod")

    def __init__(self) -> None:
        self.of_all: Group[Q] = Group()
        self.of_pod: dict[str, Group[Q]] = {}
        self.empty = True

    def add(self, queue: EventQueue[Q]) -> None:
        group = self.of_all if queue.pod is None else self.of_pod.setdefault(queue.pod, Group())
        group.add(queue)
        self.empty = False

    def remove(self, queue: EventQueue[Q]) -> None:
        """Forget a queue; one that is not there is let be."""
        pod = queue.pod
        group = self.of_all if pod is None else self.of_pod.get(pod)
        if group is not None:
            group.remove(queue)
            if pod is not None and not group.queues:
                del self.of_pod[pod]
        self.empty = not self.of_all.queues and not self.of_pod

    def heard(self, pod: str) -> Iterator[type[Event]]:
        """The transient kinds that anybody hears of ``pod``."""
        yield from self.of_all.heard
        if (group := self.of_pod.get(pod)) is not None:
            yield from group.heard

    def wants(self, pod: str, kind: type[Event]) -> bool:
        """Whether anybody has asked for such events of ``pod``, durable ones too."""
        groups = (self.of_all, self.of_pod.get(pod))
        return any(kind in queue.kinds for group in groups if group is not None for queue in group.queues)

    def queues(self) -> list[EventQueue[Q]]:
        return [queue for group in (self.of_all, *self.of_pod.values()) for queue in group.queues]


@lru_cache(maxsize=64)
def _transient(kinds: frozenset[type[Event]]) -> frozenset[type[Event]]:
    return _ONLY_TOLD & kinds
