"""The bus: publish never blocks or raises; each subscriber has a bounded queue and is told what it missed."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from functools import lru_cache
from typing import Self

import pykka

from actors.runtime.event_queue import EventQueue
from actors.runtime.prefetch import Prefetch, Source
from protocol import errors
from protocol.events import EVENTS, TRANSIENT_EVENTS, Event, EventKind, Lagged, PodEnded

#: Events that wait for a subscriber before the oldest are dropped.
QUEUE_SIZE = 10_000
#: Events that an iterator takes from its queue at a time, since each time takes a lock.
_HANDFUL = 64

_ALL_KINDS: frozenset[type[Event]] = frozenset(EVENTS)
#: What only subscribers make worth telling; ``Lagged`` comes from the queue itself.
_ONLY_TOLD: frozenset[type[Event]] = frozenset(TRANSIENT_EVENTS) - {Lagged}


class Closed(Exception):  # noqa: N818 - an end, not an error
    """The subscription is closed and its queue is empty."""


class Subscription:
    """One subscriber's view of the bus: an iterator, sync or async, and a context manager of both.

    Events come in the order they were published. A full queue drops its oldest event; the subscriber
    gets one ``Lagged`` in their place, whatever kinds it asked for. All methods may be called from any
    thread, but one at a time. A subscription that nobody holds any more is closed.
    """

    def __init__(self, bus: Bus, queue: EventQueue) -> None:
        self.pod = queue.pod
        self.kinds = queue.kinds
        self._bus = bus
        self._queue = queue
        self._hand: deque[Event] = deque()
        self._replay: Prefetch | None = None

    def __repr__(self) -> str:
        state = "closed" if self._queue.closed else f"{len(self._hand) + len(self._queue)} queued"
        return f"<Subscription {self.pod or 'all pods'}, {state}>"

    def replay(self, source: Source, on_loop: Callable[[Callable[[], None]], None]) -> None:
        """Deliver first what ``source`` tells, which is asked by ``on_loop``; what is queued of that is left
        out. Raises what the source raises, unless that comes later.
        """
        queue = self._queue
        self._replay = Prefetch(source, on_loop, queue.leave_out, queue.wake)

    def _replayed(self) -> Event | None:
        replay = self._replay
        assert replay is not None
        while (event := replay.next()) is not None:
            if type(event) in self.kinds or type(event) is Lagged:
                return event
        if replay.finished:
            self._replay = None
        return None

    def _next(self) -> Event | None:
        """The next event that is there, or None."""
        if self._replay is not None:
            event = self._replayed()
            if event is not None or self._replay is not None:
                return event
        hand = self._hand
        if not hand:
            hand.extend(self._queue.take(_HANDFUL))
        return hand.popleft() if hand else None

    def get(self, timeout: float | None = None) -> Event:
        """The next event, waited for at most ``timeout`` seconds, on a thread without a running loop.

        Raises pykka.Timeout, or Closed once the subscription is closed and empty.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            closed = self._queue.closed
            event = self._next()
            if event is not None:
                return event
            if closed:
                raise Closed
            waiter = self._queue.wait(self._bus.loop, self._replay)
            if waiter is not None:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise pykka.Timeout(f"{timeout} seconds")
                waiter.get(timeout=left)

    def drain(self) -> list[Event]:
        """What is there now, without waiting; from any thread."""
        events = list(self._hand)
        self._hand.clear()
        while self._replay is not None:
            event = self._replayed()
            if event is not None:
                events.append(event)
            elif self._replay is not None:  # what is queued comes behind what is on its way
                return events
        return events + self._queue.take()

    def close(self) -> None:
        """End the subscription; what is queued can still be read. Idempotent."""
        self._queue.closed = True
        self._bus._forget(self._queue)
        if self._replay is not None:
            self._replay.close()
        self._queue.wake()

    def __del__(self) -> None:
        # Nobody waits, so nobody is woken: that would take a lock which this very thread may hold.
        self._queue.closed = True
        self._bus._abandon(self._queue)

    async def __anext__(self) -> Event:
        while True:
            closed = self._queue.closed
            event = self._next()
            if event is not None:
                return event
            if closed:
                raise StopAsyncIteration
            waiter = self._queue.wait(self._bus.loop, self._replay)
            if waiter is not None:
                await waiter

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    def __next__(self) -> Event:
        try:
            return self.get()
        except Closed:
            raise StopIteration from None

    def __iter__(self) -> Iterator[Event]:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class _Group:
    """The open queues of one pod or of all, in the order of their making; to add and to remove one costs
    the same however many there are. ``heard`` counts who hears which transient kind.
    """

    __slots__ = ("heard", "order", "queues")

    def __init__(self) -> None:
        self.queues: dict[EventQueue, None] = {}
        #: What publishing goes through: exchanged, never changed. None: to be made anew.
        self.order: tuple[EventQueue, ...] | None = ()
        self.heard: dict[type[Event], int] = {}

    def add(self, queue: EventQueue) -> None:
        self.queues[queue] = None
        self.order = None
        for kind in _transient(queue.kinds):
            self.heard[kind] = self.heard.get(kind, 0) + 1

    def remove(self, queue: EventQueue) -> None:
        """Forget a queue; one that is not there is let be."""
        if queue not in self.queues:
            return
        del self.queues[queue]
        self.order = None
        for kind in _transient(queue.kinds):
            self.heard[kind] -= 1
            if not self.heard[kind]:
                del self.heard[kind]


@lru_cache(maxsize=64)
def _transient(kinds: frozenset[type[Event]]) -> frozenset[type[Event]]:
    return _ONLY_TOLD & kinds


class Bus:
    """From one system's pods to whoever listens. ``publish`` is called on the system's loop.

    Publishing goes through tuples that are exchanged, never changed, so that it takes no lock; after a
    change the next event makes the tuple anew.
    """

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._of_all = _Group()
        self._of_pod: dict[str, _Group] = {}
        #: Queues of subscriptions that nobody holds any more, until somebody comes by and removes them.
        self._abandoned: deque[EventQueue] = deque()
        #: Whether nobody listens at all, so that the hottest question costs one look.
        self.silent = True
        #: How often who listens to what has changed.
        self.changes = 0
        self._lock = threading.Lock()
        self._closed = False
        _buses.add(self)

    def publish(self, *events: Event) -> None:
        """Hand ``events``, in their order, to their subscribers' queues; never blocks, never raises."""
        if self.silent:
            return
        if self._abandoned:
            self._sweep()
        for event in events:
            kind = type(event)
            order = self._of_all.order
            for queue in self._ordered(self._of_all) if order is None else order:
                if kind in queue.kinds:
                    queue.put(event)
            group = self._of_pod.get(event.pod)
            if group is not None:
                order = group.order
                for queue in self._ordered(group) if order is None else order:
                    if kind in queue.kinds:
                        queue.put(event)

    def _ordered(self, group: _Group) -> tuple[EventQueue, ...]:
        with self._lock:
            order = group.order = tuple(group.queues)
        return order

    def listens(self, pod: str, kind: type[Event] | None = None) -> bool:
        """Whether anybody would hear what is only told of ``pod`` (or one kind of it): for nobody it
        need not be made.
        """
        heard = self.heard(pod)[1]
        return bool(heard) if kind is None else kind in heard

    def heard(self, pod: str) -> tuple[int, frozenset[type[Event]]]:
        """The transient kinds that anybody hears of ``pod``, and as of which of the ``changes``."""
        with self._lock:
            group = self._of_pod.get(pod)
            return self.changes, frozenset(self._of_all.heard).union(() if group is None else group.heard)

    def subscribe(
        self,
        pod: str | None = None,
        kinds: Collection[EventKind] | EventKind | None = None,
        *,
        size: int = QUEUE_SIZE,
    ) -> Subscription:
        """A new subscription to one pod or all, to some kinds of events or all; from any thread.

        ``size`` is how many events wait before the oldest are dropped, at least 1. On a closed bus the
        subscription is closed from its start. Raises TypeError for what is no kind of event.
        """
        if size < 1:
            raise ValueError(f"a subscription's queue holds at least 1 event, not {size}")
        queue = EventQueue(pod, kinds_of(kinds), size)
        with self._lock:
            self._remove_abandoned()
            queue.closed = self._closed
            if not self._closed:
                group = self._of_all if pod is None else self._of_pod.setdefault(pod, _Group())
                group.add(queue)
                self.silent = False
                self.changes += 1
        return Subscription(self, queue)

    def _forget(self, queue: EventQueue) -> None:
        """Let go of a queue that is closed."""
        with self._lock:
            self._remove(queue)

    def _abandon(self, queue: EventQueue) -> None:
        """Let go of a queue whose subscription was collected, perhaps while this thread holds the lock."""
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
        """Let go of what nobody holds any more; the lock must be held."""
        while self._abandoned:
            self._remove(self._abandoned.popleft())

    def _remove(self, queue: EventQueue) -> None:
        pod = queue.pod
        group = self._of_all if pod is None else self._of_pod.get(pod)
        if group is not None:
            group.remove(queue)
            if pod is not None and not group.queues:
                del self._of_pod[pod]
        self.silent = not self._of_all.queues and not self._of_pod
        self.changes += 1

    def renew_locks(self) -> None:
        """Be usable in a forked child, though another thread of the parent held a lock."""
        self._lock = threading.Lock()
        for queue in self._queues():
            queue.renew_lock()

    def _queues(self) -> list[EventQueue]:
        """All open queues; the lock must be held."""
        self._remove_abandoned()
        return [queue for group in (self._of_all, *self._of_pod.values()) for queue in group.queues]

    def statistics(self) -> dict[str, int]:
        """How many subscriptions there are, and how many events wait in their queues."""
        with self._lock:
            queues = self._queues()
        return {"subscriptions": len(queues), "queued": sum(map(len, queues))}

    def close(self) -> None:
        """End all subscriptions, also those to come; their readers get what is queued, then an end."""
        with self._lock:
            self._closed = True
            queues = self._queues()
            for queue in queues:
                queue.closed = True
            self._of_all, self._of_pod, self.silent = _Group(), {}, True
            self.changes += 1
        for queue in queues:
            queue.wake()


def kinds_of(kinds: Collection[EventKind] | EventKind | None) -> frozenset[type[Event]]:
    """The kinds that are asked for, None for all. Raises TypeError for what is no kind of event."""
    if kinds is None:
        return _ALL_KINDS
    given = {kinds} if isinstance(kinds, type) else kinds
    # Old programs name the event by the error that once had the same name.
    chosen = frozenset(PodEnded if issubclass(kind, errors.PodStopped) else kind for kind in given)
    strangers = chosen - _ALL_KINDS
    if strangers:
        raise TypeError(f"not a kind of event: {', '.join(sorted(map(str, strangers)))}")
    return chosen


_buses: weakref.WeakSet[Bus] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for bus in list(_buses):
        bus.renew_locks()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
