"""The bus: publish never blocks or raises; each subscriber has a bounded queue and learns what it missed."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections import deque
from collections.abc import Collection, Sequence
from typing import Any

from actors.runtime.arguments import several
from actors.runtime.events.encoded import EncodedEvent
from actors.runtime.events.event_queue import EventQueue, Q
from actors.runtime.events.subscribers import Group, Subscribers
from actors.runtime.events.subscription import EncodedSubscription, Feed, Subscription
from protocol import errors
from protocol.entries import StoredEntry
from protocol.events import EVENTS, Event, EventKind, PodEnded
from protocol.foreign import shown

#: Events that wait for a subscriber before the oldest are dropped.
QUEUE_SIZE = 10_000

_ALL_KINDS: frozenset[type[Event]] = frozenset(EVENTS)


class Bus:
    """Delivers the events of one system's pods. ``publish`` is called on the system's loop.

    Publishing reads tuples that are replaced, never changed, so it takes no lock; after a change the next
    event makes the tuple again.
    """

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._near: Subscribers[Event] = Subscribers()
        #: Those who want bytes.
        self._far: Subscribers[EncodedEvent] = Subscribers()
        #: Queues of subscriptions that nobody holds any more, until somebody comes by and removes them.
        self._abandoned: deque[EventQueue[Any]] = deque()
        #: Whether there is no subscriber at all, so that the hottest question costs one look.
        self.silent = True
        #: Whether anybody wants bytes.
        self.fed = False
        #: How often a subscription was opened or closed.
        self.changes = 0
        #: The parents of the sub-agents that live, by their names.
        self._parents: dict[str, str] = {}
        self._lock = threading.Lock()
        self._closed = False
        _buses.add(self)

    def publish(self, events: Sequence[Event], entries: Sequence[StoredEntry] = ()) -> None:
        """Put ``events``, all of one pod, in order into the queues of their subscribers; never blocks, never
        raises. ``entries`` are the stored entries of those that are durable, if any.
        """
        if self.silent or not events:
            return
        if self._abandoned:
            self._sweep()
        near = self._near
        if (queues := near.of_all.order) is None:
            queues = self._ordered(near.of_all)
        if (group := near.of_pod.get(events[0].pod)) is not None:
            queues = queues + (group.order or self._ordered(group))
        for queue in queues:
            kinds = queue.kinds
            queue.put_all(events if kinds is _ALL_KINDS else _of_kinds(events, kinds))
        if self.fed:
            self._publish_bytes(events, entries)

    def _publish_bytes(self, events: Sequence[Event], entries: Sequence[StoredEntry]) -> None:
        bodies = {entry.seq: entry.body for entry in entries}
        for event in events:
            self.publish_encoded(EncodedEvent(event, bodies.get(event.seq) if event.durable else None))

    def publish_encoded(self, encoded: EncodedEvent) -> None:
        """Give an event only to subscribers that want its bytes."""
        far, kind = self._far, type(encoded.event)
        for group in (far.of_all, far.of_pod.get(encoded.event.pod)):
            if group is not None:
                order = group.order
                for queue in self._ordered(group) if order is None else order:
                    if kind in queue.kinds:
                        queue.put(encoded)

    def _ordered(self, group: Group[Q]) -> tuple[EventQueue[Q], ...]:
        with self._lock:
            order = group.order = tuple(group.queues)
        return order

    def has_subscriber(self, pod: str, kind: type[Event]) -> bool:
        """Whether any subscription gets events of that kind, durable or not, of ``pod``."""
        with self._lock:
            self._remove_abandoned()
            return self._near.wants(pod, kind) or self._far.wants(pod, kind)

    def subscribed_kinds(self, pod: str) -> tuple[int, frozenset[type[Event]]]:
        """The transient kinds of ``pod`` that have a subscriber, and the number of ``changes`` that this
        reflects.
        """
        with self._lock:
            return self.changes, frozenset(self._near.transient_kinds(pod)).union(
                self._far.transient_kinds(pod)
            )

    def subscribe(
        self,
        pod: str | None = None,
        kinds: Collection[EventKind] | EventKind | None = None,
        *,
        size: int = QUEUE_SIZE,
        children: bool = False,
    ) -> Subscription:
        """A new subscription to one pod or all, to some kinds of events or all; from any thread.

        With ``children`` it also gets those of the pod's sub-agents, at any depth, including future ones.
        ``size`` is how many events may wait before the oldest are dropped, at least 1. On a closed bus the
        subscription is closed from the start. Raises TypeError for anything that is not a kind of event.
        """
        return Subscription(self, self._listen(self._near, pod, kinds, size, children=children))

    def feed(
        self,
        pod: str | None = None,
        kinds: Collection[EventKind] | EventKind | None = None,
        *,
        size: int = QUEUE_SIZE,
        children: bool = False,
        drops_durable: bool = True,
    ) -> Feed:
        """As ``subscribe``, for those who want the events as bytes. A full queue drops its oldest event, or
        all transient ones, and then grows by the durable ones.
        """
        queue = self._listen(self._far, pod, kinds, size, children=children, drops_durable=drops_durable)
        return Feed(self, queue)

    def subscribe_encoded(self) -> EncodedSubscription:
        """A new subscription to all events, for those who want their bytes as well."""
        return EncodedSubscription(self, self._listen(self._far, None, None, QUEUE_SIZE))

    def _listen(
        self,
        subscribers: Subscribers[Q],
        pod: str | None,
        kinds: Collection[EventKind] | EventKind | None,
        size: int,
        *,
        children: bool = False,
        drops_durable: bool = True,
    ) -> EventQueue[Q]:
        if size < 1:
            raise ValueError(f"a subscription's queue must hold at least 1 event, not {size}")
        children = children and pod is not None  # who subscribes to all gets those
        queue: EventQueue[Q] = EventQueue(
            pod, kinds_of(kinds), size, children=children, drops_durable=drops_durable
        )
        with self._lock:
            self._remove_abandoned()
            queue.closed = self._closed
            if not self._closed:
                subscribers.add(queue)
                if children:
                    for child in self._below(pod):
                        subscribers.join(queue, child)
                self._refresh()
        return queue

    def adopt(self, child: str, parent: str) -> None:
        """Have subscribers to ``parent`` and its sub-agents also get the events of ``child``, its new
        sub-agent.
        """
        if self._parents.get(child) == parent:
            return
        with self._lock:
            self._parents[child] = parent
            self._near.add_child(child, parent)
            self._far.add_child(child, parent)
            self._refresh()

    def disown(self, child: str) -> None:
        """Note that the sub-agent ``child`` has ended."""
        with self._lock:
            if self._parents.pop(child, None) is not None:
                self._near.drop_child(child)
                self._far.drop_child(child)
                self._refresh()

    def below(self, pod: str) -> list[str]:
        """The living sub-agents of ``pod``, at any depth."""
        with self._lock:
            return self._below(pod)

    def _below(self, pod: str | None) -> list[str]:
        found = [child for child, parent in self._parents.items() if parent == pod]
        return [*found, *(each for child in found for each in self._below(child))]

    def _forget(self, queue: EventQueue[Any]) -> None:
        """Drop a queue that is closed."""
        with self._lock:
            self._remove(queue)

    def _abandon(self, queue: EventQueue[Any]) -> None:
        """Drop a queue whose subscription was garbage-collected, perhaps while this thread holds the lock."""
        self._abandoned.append(queue)
        if self._lock.acquire(blocking=False):  # else who comes by next removes it
            try:
                self._remove_abandoned()
            finally:
                self._lock.release()

    def _sweep(self) -> None:
        with self._lock:
            self._remove_abandoned()

    def _remove_abandoned(self) -> None:
        """Drop the queues that nobody holds any more; the lock must be held."""
        while self._abandoned:
            self._remove(self._abandoned.popleft())

    def _remove(self, queue: EventQueue[Any]) -> None:
        self._near.remove(queue)
        self._far.remove(queue)
        self._refresh()

    def _refresh(self) -> None:
        self.fed = not self._far.empty
        self.silent = self._near.empty and not self.fed
        self.changes += 1

    def renew_locks(self) -> None:
        """Renew the locks in a forked child, where a thread of the parent may have held one."""
        self._lock = threading.Lock()
        for queue in self._queues():
            queue.renew_lock()

    def _queues(self) -> list[EventQueue[Any]]:
        """All open queues; the lock must be held."""
        self._remove_abandoned()
        return [*self._near.queues(), *self._far.queues()]

    def statistics(self) -> dict[str, int]:
        """How many subscriptions there are, and how many events wait in their queues."""
        with self._lock:
            queues = self._queues()
        return {"subscriptions": len(queues), "queued": sum(map(len, queues))}

    def close(self) -> None:
        """End all subscriptions, future ones included; their readers get what is queued, then an end."""
        with self._lock:
            self._closed = True
            queues = self._queues()
            for queue in queues:
                queue.closed = True
            self._near, self._far = Subscribers(), Subscribers()
            self._refresh()
        for queue in queues:
            queue.wake()


def _of_kinds(events: Sequence[Event], kinds: frozenset[type[Event]]) -> Sequence[Event]:
    """The ``events`` that are of these kinds."""
    return [event for event in events if type(event) in kinds]


def kinds_of(kinds: Collection[EventKind] | EventKind | None) -> frozenset[type[Event]]:
    """The kinds that are asked for, None for all. Raises TypeError for anything that is not a
    kind of event.
    """
    if kinds is None:
        return _ALL_KINDS
    given = (kinds,) if isinstance(kinds, type) else several("kinds", kinds)
    return frozenset([_kind(kind) for kind in given])


def _kind(kind: Any) -> type[Event]:
    # Old programs name the event by the error that once had the same name.
    if isinstance(kind, type) and issubclass(kind, errors.PodStopped):
        return PodEnded
    if not isinstance(kind, type) or kind not in _ALL_KINDS:
        raise TypeError(f"not a kind of event: {shown(kind)}; kinds are event classes, such as RunEnd")
    chosen: type[Event] = kind
    return chosen


_buses: weakref.WeakSet[Bus] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for bus in list(_buses):
        bus.renew_locks()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
