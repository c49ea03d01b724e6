"""The bus: publish never blocks or raises; each subscriber has a bounded queue and is told what it missed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterator
from typing import Self, cast

import pykka

from actors.runtime.future import AsyncFuture
from protocol import errors
from protocol.events import EVENTS, Event, Lagged, PodStopped

#: Events that wait for a subscriber before the oldest are dropped.
QUEUE_SIZE = 10_000

_ALL_KINDS: frozenset[type[Event]] = frozenset(EVENTS)


class Closed(Exception):  # noqa: N818 - an end, not an error
    """The subscription is closed and its queue is empty."""


class Subscription:
    """One subscriber's view of the bus: an iterator, sync or async, and a context manager of both.

    Events come in the order they were published. A full queue drops its oldest event; the subscriber
    gets one ``Lagged`` in their place. All methods may be called from any thread, but one at a time.
    """

    def __init__(self, bus: Bus, pod: str | None, kinds: frozenset[type[Event]], size: int) -> None:
        self.pod = pod
        self.kinds = kinds
        self._bus = bus
        self._size = size
        self._queue: deque[Event] = deque()
        self._replay: Iterator[Event] | None = None
        self._replayed: dict[str, int] = {}
        self._missed = 0
        self._since: dict[str, int] = {}
        self._waiter: AsyncFuture[None] | None = None
        self._closed = False
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._queue)} queued"
        return f"<Subscription {self.pod or 'all pods'}, {state}>"

    # -- the publisher's side, on the loop -------------------------------------------------------

    def _put(self, event: Event) -> None:
        queue = self._queue
        if len(queue) >= self._size:
            self._drop()
        queue.append(event)
        if self._waiter is not None:
            self._wake()

    def _drop(self) -> None:
        with self._lock:
            try:
                lost = self._queue.popleft()
            except IndexError:  # the reader was quicker
                return
            self._missed += 1
            # What a durable event's number says is the last thing before it that is surely known.
            if lost.pod not in self._since:
                self._since[lost.pod] = lost.seq - 1 if lost.durable else lost.seq

    def _wake(self) -> None:
        with self._lock:
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.set(None)

    # -- the subscriber's side -------------------------------------------------------------------

    def replay(self, events: Iterator[Event], through: dict[str, int]) -> None:
        """Deliver ``events`` first; they tell all that is durable ``through`` these numbers, so that
        what was queued of it meanwhile is left out.
        """
        self._replayed = through
        self._replay = events

    def _next(self) -> Event | None:
        """The next event that is there, or None."""
        if self._replay is not None:
            for event in self._replay:
                if type(event) in self.kinds:
                    return event
            self._replay = None
        if self._missed:
            return self._lagged()
        try:
            event = self._queue.popleft()
            while self._replayed and event.durable and event.seq <= self._replayed.get(event.pod, 0):
                event = self._queue.popleft()
        except IndexError:
            return None
        return event

    def _lagged(self) -> Lagged:
        with self._lock:
            missed, since = self._missed, dict(self._since)
            self._missed = 0
            self._since.clear()
        told: int | dict[str, int] = since
        if self.pod is not None:
            told = since.get(self.pod, 0)
        return Lagged(
            pod=self.pod or "*",
            session_id="",
            seq=told if isinstance(told, int) else 0,
            at=time.time(),
            missed=missed,
            since=told,
        )

    def _wait(self) -> AsyncFuture[None] | None:
        """A future that resolves when there is something; None if there is already."""
        with self._lock:
            if self._queue or self._closed:
                return None
            if self._waiter is None:
                self._waiter = AsyncFuture()
                self._waiter._loop = self._bus.loop
            return self._waiter

    def get(self, timeout: float | None = None) -> Event:
        """The next event, waited for at most ``timeout`` seconds, on a thread without a running loop.

        Raises pykka.Timeout, or Closed once the subscription is closed and empty.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            event = self._next()
            if event is not None:
                return event
            if self._closed:
                raise Closed
            waiter = self._wait()
            if waiter is not None:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise pykka.Timeout(f"{timeout} seconds")
                waiter.get(timeout=left)

    def drain(self) -> list[Event]:
        """What is there now, without waiting; from any thread."""
        events = []
        while (event := self._next()) is not None:
            events.append(event)
        return events

    def close(self) -> None:
        """End the subscription; what is queued can still be read. Idempotent."""
        self._closed = True
        self._bus._forget(self)
        self._wake()

    async def __anext__(self) -> Event:
        while True:
            event = self._next()
            if event is not None:
                return event
            if self._closed:
                raise StopAsyncIteration
            waiter = self._wait()
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


class Bus:
    """From one system's pods to whoever listens. ``publish`` is called on the system's loop."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._of_all: tuple[Subscription, ...] = ()
        self._of_pod: dict[str, tuple[Subscription, ...]] = {}
        self._lock = threading.Lock()
        #: Whether nobody listens at all, so that the hottest question costs one look.
        self.silent = True

    def publish(self, event: Event) -> None:
        """Hand ``event`` to its subscribers' queues; never blocks, never raises."""
        if self.silent:
            return
        if self._of_all:
            kind = type(event)
            for subscription in self._of_all:
                if kind in subscription.kinds:
                    subscription._put(event)
        if self._of_pod:
            subscriptions = self._of_pod.get(event.pod)
            if subscriptions is not None:
                kind = type(event)
                for subscription in subscriptions:
                    if kind in subscription.kinds:
                        subscription._put(event)

    def listens(self, pod: str) -> bool:
        """Whether anybody would hear of ``pod``: what is only told need not be made for nobody."""
        return bool(self._of_all) or (bool(self._of_pod) and pod in self._of_pod)

    def subscribe(
        self,
        pod: str | None = None,
        kinds: Collection[type[Event]] | type[Event] | None = None,
        *,
        size: int = QUEUE_SIZE,
    ) -> Subscription:
        """A new subscription to one pod or all, to some kinds of events or all; from any thread."""
        subscription = Subscription(self, pod, _kinds(kinds), size)
        with self._lock:
            if pod is None:
                self._of_all = (*self._of_all, subscription)
            else:
                self._of_pod[pod] = (*self._of_pod.get(pod, ()), subscription)
            self.silent = False
        return subscription

    def _forget(self, subscription: Subscription) -> None:
        with self._lock:
            if subscription.pod is None:
                self._of_all = tuple(s for s in self._of_all if s is not subscription)
            else:
                others = self._of_pod.get(subscription.pod, ())
                left = tuple(s for s in others if s is not subscription)
                if left:
                    self._of_pod[subscription.pod] = left
                else:
                    self._of_pod.pop(subscription.pod, None)
            self.silent = not self._of_all and not self._of_pod

    def statistics(self) -> dict[str, int]:
        """How many subscriptions there are, and how many events wait in their queues."""
        subscriptions = [*self._of_all, *(s for group in self._of_pod.values() for s in group)]
        return {
            "subscriptions": len(subscriptions),
            "queued": sum(len(s._queue) for s in subscriptions),
        }

    def close(self) -> None:
        """End all subscriptions; their readers get what is queued and then an end."""
        for subscription in [*self._of_all, *(s for g in list(self._of_pod.values()) for s in g)]:
            subscription.close()


def _kinds(kinds: Collection[type[Event]] | type[Event] | None) -> frozenset[type[Event]]:
    if kinds is None:
        return _ALL_KINDS
    given = {kinds} if isinstance(kinds, type) else kinds
    double = cast("type[Event]", errors.PodStopped)  # the error of the same name stands for the event
    chosen = frozenset(PodStopped if kind is double else kind for kind in given)
    strangers = chosen - _ALL_KINDS
    if strangers:
        raise TypeError(f"not a kind of event: {', '.join(sorted(map(str, strangers)))}")
    return chosen
