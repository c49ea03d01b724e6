"""How a subscriber reads what a bus gives it: as events, as their bytes, or as both."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Generic, Self, TypeVar

import pykka

from actors.runtime.arguments import wait_of
from actors.runtime.events.encoded import EncodedEvent
from actors.runtime.events.event_queue import EventQueue, Q
from actors.runtime.events.prefetch import Prefetch, Source
from actors.runtime.future import AsyncFuture
from protocol.entries import StoredEntry
from protocol.events import Event, Lagged
from protocol.wire import decode_entry, encode, event_kind

if TYPE_CHECKING:
    from actors.runtime.events.bus import Bus

#: Events that an iterator takes from its queue at a time, since each time takes a lock.
_HANDFUL = 64

T = TypeVar("T")


class Closed(Exception):  # noqa: N818 - an end, not an error
    """The subscription is closed and its queue is empty."""


class _Reading(Generic[Q, T]):
    """What reads a queue of ``Q``, and gives ``T``."""

    def __init__(self, bus: Bus, queue: EventQueue[Q]) -> None:
        self.pod = queue.pod
        self.kinds = queue.kinds
        self._bus = bus
        self._queue = queue
        self._hand: deque[T] = deque()
        self._replay: Prefetch[StoredEntry | Lagged] | None = None

    def __repr__(self) -> str:
        state = "closed" if self._queue.closed else f"{len(self._hand) + len(self._queue)} queued"
        return f"<{type(self).__name__} {self.pod or 'all pods'}, {state}>"

    def _queued(self, limit: int = sys.maxsize) -> list[T]:
        """What waits in the queue, at most ``limit`` events and what was missed before."""
        raise NotImplementedError

    def _past(self, what: StoredEntry | Lagged) -> T:
        """What a reader gets for an event of a replay. Raises WireError, NewerVersion."""
        raise NotImplementedError

    def replay(
        self, source: Source[StoredEntry | Lagged], on_loop: Callable[[Callable[[], None]], None]
    ) -> None:
        """Deliver first the events of ``source``, which is asked by ``on_loop``; what it covers is removed
        from the queue. Raises what the source raises, unless that comes later.
        """
        queue = self._queue
        self._replay = Prefetch(source, on_loop, queue.leave_out, queue.wake)

    def _take_replayed(self) -> T | None:
        replay = self._replay
        assert replay is not None
        while (what := replay.next()) is not None:
            if isinstance(what, Lagged) or event_kind(what.body) in self.kinds:
                return self._past(what)
        if replay.finished:
            self._replay = None
        return None

    def _next(self) -> T | None:
        """The next event, or None."""
        if self._replay is not None:
            event = self._take_replayed()
            if event is not None or self._replay is not None:
                return event
        hand = self._hand
        if not hand:
            hand.extend(self._queued(_HANDFUL))
        return hand.popleft() if hand else None

    def _look_again(self) -> tuple[T | None, AsyncFuture[None] | None]:
        """An event that has come since, or what to wait for; neither where that is to be looked at once more.
        Raises Closed.
        """
        closed = self._queue.closed  # before the look, since what came before the end is read before it
        event = self._next()
        if event is not None:
            return event, None
        if closed:
            raise Closed
        return None, self._queue.wait(self._bus.loop, self._replay)

    def get(self, timeout: float | None = None) -> T:
        """The next event, waited for at most ``timeout`` seconds, on a thread without a running loop.

        Raises pykka.Timeout, or Closed once the subscription is closed and empty.
        """
        seconds = wait_of("timeout", timeout)
        deadline = None if seconds is None else time.monotonic() + seconds
        event = self._next()
        while event is None:
            event, waiter = self._look_again()
            if waiter is not None:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise pykka.Timeout(f"{timeout} seconds")
                waiter.get(timeout=left)
        return event

    def drain(self) -> list[T]:
        """What is there now, without waiting; from any thread."""
        events = list(self._hand)
        self._hand.clear()
        while self._replay is not None:
            event = self._take_replayed()
            if event is not None:
                events.append(event)
            elif self._replay is not None:  # what is queued comes behind what is on its way
                return events
        return events + self._queued()

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

    async def __anext__(self) -> T:
        event = self._next()
        while event is None:
            try:
                event, waiter = self._look_again()
            except Closed:
                raise StopAsyncIteration from None
            if waiter is not None:
                await waiter
        return event

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    def __next__(self) -> T:
        try:
            return self.get()
        except Closed:
            raise StopIteration from None

    def __iter__(self) -> Iterator[T]:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class Subscription(_Reading[Event, Event]):
    """One subscriber's view of the bus: an iterator, sync or async, and a context manager of both.

    Events come in the order they were published. A full queue drops its oldest event; the subscriber
    gets one ``Lagged`` in their place, whatever kinds it asked for. All methods may be called from any
    thread, but one at a time. A subscription that nobody holds any more is closed.
    """

    def _queued(self, limit: int = sys.maxsize) -> list[Event]:
        return self._queue.take(limit)

    def _past(self, what: StoredEntry | Lagged) -> Event:
        return what if isinstance(what, Lagged) else decode_entry(what.body)  # type: ignore[return-value]


class EncodedSubscription(_Reading[EncodedEvent, EncodedEvent]):
    """A subscription that gives each event together with its bytes."""

    def _queued(self, limit: int = sys.maxsize) -> list[EncodedEvent]:
        taken = self._queue.take(limit)
        return [each if isinstance(each, EncodedEvent) else EncodedEvent(each) for each in taken]

    def _past(self, what: StoredEntry | Lagged) -> EncodedEvent:
        if isinstance(what, Lagged):
            return EncodedEvent(what)
        return EncodedEvent(decode_entry(what.body), what.body)  # type: ignore[arg-type]


class Feed(_Reading[EncodedEvent, bytes]):
    """A subscription for those who forward events: it gives their bytes, which ``protocol.wire`` decodes.

    Those of durable events are the bytes that the log keeps; those of others are made once, for all feeds.
    """

    def there(self, room: int) -> Iterator[bytes]:
        """What is there now, up to that many bytes; without waiting. Raises what a replay does."""
        while room > 0 and (event := self._next()) is not None:
            room -= len(event)
            yield event

    def _queued(self, limit: int = sys.maxsize) -> list[bytes]:
        return [
            each.body if isinstance(each, EncodedEvent) else encode(each) for each in self._queue.take(limit)
        ]

    def _past(self, what: StoredEntry | Lagged) -> bytes:
        return encode(what) if isinstance(what, Lagged) else what.body
