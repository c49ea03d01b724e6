"""Per-server concurrency limit and circuit breaker.

    CLOSED ──── trip_after failures in a row ───▶ OPEN ──── cooldown over ────▶ HALF_OPEN
      ▲                                            ▲                               │
      │                                            └──── the one probe failed ─────┤
      └──────────────────────────────────────────────── the one probe was answered ┘

A failure is a connection that could not be made or an answer that says the server is overloaded; any other
answer, a refusal too, is a sign of life. While the one probe is on its way the others wait for what comes of
it: a thousand pods find out that a server is back by one request, and none of them gives up meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from enum import StrEnum

from msgspec import Struct

from actors.llm.http.rate import BYTES_PER_TOKEN, RateWindow, Sent
from protocol.errors import ModelError
from protocol.usage import Usage

#: Streams that may be open to one server with one key at once.
MAX_STREAMS = 512
#: Failures in a row after which a server is left alone for a while.
TRIP_AFTER = 5
#: How long it is left alone, in seconds.
COOLDOWN = 2.0


class BreakerState(StrEnum):
    """Whether requests are let through."""

    #: The server answers, or has not failed often enough: all go through.
    CLOSED = "closed"
    #: It failed time after time: requests fail at once.
    OPEN = "open"
    #: One request tries whether it is back; the others fail at once.
    HALF_OPEN = "half_open"


class EndpointStatistics(Struct, frozen=True):
    """What can be seen of an endpoint from outside."""

    running: int
    waiting: int
    failures: int
    state: BreakerState


class Entry:
    """Permission to send one request. ``leave`` gives it back, whatever the result; it may be
    called twice.
    """

    __slots__ = ("_endpoint", "_inside", "_probe", "_sent")

    def __init__(self, endpoint: Endpoint, *, probe: bool) -> None:
        self._endpoint = endpoint
        self._probe = probe
        self._inside = True
        self._sent: Sent | None = None

    async def admit(self, size: int, deadline: float | None) -> None:
        """Wait until a request of that many bytes fits the limits per minute. Raises ModelError if that is
        after the deadline.
        """
        rate, where = self._endpoint.rate, self._endpoint.where
        if rate is not None:
            self._sent = await rate.enter(where, size // BYTES_PER_TOKEN, deadline)

    def settle(self, usage: Usage | None) -> None:
        """Count what the server reports for the request."""
        if self._sent is not None:
            self._sent.settle(usage)

    def answered(self) -> None:
        """Note that the server gave a sign of life."""
        self._probe = False
        self._endpoint._alive()  # noqa: SLF001 - the two are one thing

    def failed(self, error: ModelError) -> None:
        """Note that the request failed; only failures to connect and overload count against the server."""
        if error.kind in {"connection", "overloaded"}:
            self._probe = False
            self._endpoint._count_failure(error)  # noqa: SLF001
        elif error.status is not None:
            self.answered()

    def leave(self) -> None:
        """Let the next one in."""
        if self._inside:
            self._inside = False
            self._endpoint._leave(undecided=self._probe)  # noqa: SLF001


class Endpoint:
    """Admits requests to one server, in order of arrival; safe to cancel. Used on one event loop. ``clock``
    gives monotonic seconds.
    """

    def __init__(
        self,
        where: str,
        *,
        streams: int = MAX_STREAMS,
        trip_after: int = TRIP_AFTER,
        cooldown: float = COOLDOWN,
        rate: RateWindow | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.where = where
        #: What it takes in a minute; None where nobody has said.
        self.rate = rate
        self._streams = streams
        self._trip_after = trip_after
        self._cooldown = cooldown
        self._clock = clock
        self._running = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._failures = 0
        self._opened_at: float | None = None
        self._last_failure: ModelError | None = None
        self._known = False  # it has answered before
        self._verdict: asyncio.Event | None = None  # set while a probe is on its way

    def __repr__(self) -> str:
        return f"<Endpoint {self.where} {self.state}, {self._running} running, {len(self._waiters)} waiting>"

    @property
    def state(self) -> BreakerState:
        """Whether requests are let through now."""
        if self._opened_at is None:
            return BreakerState.CLOSED
        if self._clock() < self._opened_at + self._cooldown:
            return BreakerState.OPEN
        return BreakerState.HALF_OPEN

    def statistics(self) -> EndpointStatistics:
        """What can be seen from outside."""
        return EndpointStatistics(self._running, len(self._waiters), self._failures, self.state)

    async def enter(self, deadline: float | None = None) -> Entry:
        """Wait for a free slot, at most until ``deadline`` (of ``clock``). Raises ModelError at once while
        the server is known to be down or overloaded (it says when to ask again), and when the deadline
        passes.
        """
        probe = self._opened_at is not None and await self._pass_breaker()
        if self._running < self._streams and not self._waiters:
            self._running += 1
            return Entry(self, probe=probe)
        try:
            await self._wait(deadline)
        except BaseException:
            if probe:
                self._decide()
            raise
        return Entry(self, probe=probe)

    async def _pass_breaker(self) -> bool:
        """Fail while the breaker is open; afterwards be the probe (True), or wait for its result."""
        while self._opened_at is not None:
            self._refuse_while_open()
            if self._verdict is None:
                self._verdict = asyncio.Event()
                return True
            try:
                async with asyncio.timeout(self._cooldown):
                    await self._verdict.wait()
            except TimeoutError:
                break  # the probe has not failed: it waits for its answer, and so may we
        return False

    def _refuse_while_open(self) -> None:
        if self.state is not BreakerState.OPEN or self._opened_at is None or self._last_failure is None:
            return
        last = self._last_failure
        raise ModelError(
            f"{last.message} ({self._failures} failures in a row: requests are paused for a moment)",
            kind=last.kind,
            hint=last.hint,
            where=self.where,
            retry_after=self._opened_at + self._cooldown - self._clock(),
            counts=False,
        ) from last

    async def _wait(self, deadline: float | None) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(place)
        try:
            async with asyncio.timeout(None if deadline is None else deadline - self._clock()):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():
                self._free()  # the place was given to us when we no longer wanted it
            else:
                self._waiters.remove(place)
            if isinstance(error, TimeoutError):
                raise ModelError(
                    f"{self.where}: {self._streams} streams are already open, and none ended in time",
                    kind="timeout",
                    where=self.where,
                    retryable=False,
                ) from None
            raise

    def _free(self) -> None:
        while self._waiters:
            place = self._waiters.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._running -= 1

    def _leave(self, *, undecided: bool) -> None:
        if undecided:
            self._decide()
        self._free()

    def _alive(self) -> None:
        self._known = True
        if self._failures:
            self._failures = 0
            self._opened_at = None
            self._last_failure = None
            self._decide()

    def _count_failure(self, error: ModelError) -> None:
        if self._opened_at is not None or (self._known and error.kind == "connection"):
            error.counts = False  # it is away: worth waiting for, unlike one that was never there
        self._failures += 1
        self._last_failure = error
        if self._failures >= self._trip_after:
            self._opened_at = self._clock()
        self._decide()

    def _decide(self) -> None:
        """Let those who wait go on: the probe has its result, or was given up."""
        if self._verdict is not None:
            self._verdict.set()
            self._verdict = None
