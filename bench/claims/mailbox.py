"""Claim: how many messages an actor handles, sent and asked, from its own loop and from other threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pykka

from actors.runtime.actor import AsyncActor
from bench.claim import Claim, Measure, at_least
from bench.measure import Stopwatch
from bench.results import Reading

CLAIM = Claim("mailbox", "tell and ask: messages through an actor's mailbox")


class _Counter(AsyncActor):
    """Counts its messages, and sets an event at the last."""

    def __init__(self, last: int = -1, done: Callable[[], None] | None = None) -> None:
        super().__init__()
        self._left = last
        self._done = done

    def on_receive(self, message: Any) -> Any:
        self._left -= 1
        if self._left == 0 and self._done is not None:
            self._done()
        return message


class _ThreadCounter(pykka.ThreadingActor):
    """A counter on a thread of its own."""

    def __init__(self, last: int = -1, done: Callable[[], None] | None = None) -> None:
        super().__init__()
        self._left = last
        self._done = done

    def on_receive(self, message: Any) -> Any:
        self._left -= 1
        if self._left == 0 and self._done is not None:
            self._done()
        return message


# -- in one loop -----------------------------------------------------------------------------------


def send_in_loop(count: int) -> list[Reading]:
    """Messages sent by a coroutine of the actor's own loop."""

    async def work() -> list[Reading]:
        done = asyncio.Event()
        ref = _Counter.start(count, done.set)
        with Stopwatch() as watch:
            for number in range(count):
                ref.tell(number)
            await done.wait()
        await ref.stop(block=False)
        return [watch.rate("tells", count, "cpu")]

    return asyncio.run(work())


def ask_in_loop(count: int) -> list[Reading]:
    """Questions asked and awaited, one after another."""

    async def work() -> list[Reading]:
        ref = _Counter.start()
        with Stopwatch() as watch:
            for number in range(count):
                await ref.ask(number, block=False)
        await ref.stop(block=False)
        return [watch.rate("asks", count, "cpu")]

    return asyncio.run(work())


def deque_calls(count: int) -> list[Reading]:
    """A deque filled, then drained by calls of a method."""
    left: deque[tuple[Callable[[int], int], int]] = deque()
    handle = _Bare().handle
    with Stopwatch() as watch:
        for number in range(count):
            left.append((handle, number))
        while left:
            call, message = left.popleft()
            call(message)
    return [watch.rate("tells", count, "cpu")]


class _Bare:
    def __init__(self) -> None:
        self.seen = 0

    def handle(self, message: int) -> int:
        self.seen += 1
        return message


def asyncio_futures(count: int) -> list[Reading]:
    """An asyncio future that the loop's next turn resolves, awaited."""

    async def work() -> list[Reading]:
        loop = asyncio.get_running_loop()
        with Stopwatch() as watch:
            for number in range(count):
                future = loop.create_future()
                loop.call_soon(future.set_result, number)
                await future
        return [watch.rate("asks", count, "cpu")]

    return asyncio.run(work())


# -- from another thread ---------------------------------------------------------------------------


def pinned(cores: int, measure: Measure) -> Measure:
    """``measure`` with all threads on so many cores, if the system supports that."""

    def on_cores(count: int) -> list[Reading]:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
        return measure(count)

    return on_cores


def _sent_by_a_thread(actor: Any) -> Measure:
    def measure(count: int) -> list[Reading]:
        done = threading.Event()
        ref = actor.start(count, done.set)
        with Stopwatch() as watch:
            for number in range(count):
                ref.tell(number)
            done.wait()
        ref.stop()
        return [watch.rate("tells", count)]

    return measure


def _asked_by_a_thread(actor: Any) -> Measure:
    def measure(count: int) -> list[Reading]:
        ref = actor.start()
        with Stopwatch() as watch:
            for number in range(count):
                ref.ask(number)
        ref.stop()
        return [watch.rate("asks", count)]

    return measure


def _thread_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


def raw_sends(count: int) -> list[Reading]:
    """A deque that a thread's loop drains, woken if it was empty."""
    loop, left, done = _thread_loop(), deque[int](), threading.Event()

    def drain() -> None:
        while left:
            if left.popleft() == count - 1:
                done.set()

    with Stopwatch() as watch:
        for number in range(count):
            left.append(number)
            if len(left) == 1:
                loop.call_soon_threadsafe(drain)
        loop.call_soon_threadsafe(drain)
        done.wait()
    loop.call_soon_threadsafe(loop.stop)
    return [watch.rate("tells", count)]


def raw_asks(count: int) -> list[Reading]:
    """A future that a call on a thread's loop resolves, waited for."""
    loop = _thread_loop()
    with Stopwatch() as watch:
        for number in range(count):
            future: concurrent.futures.Future[int] = concurrent.futures.Future()
            loop.call_soon_threadsafe(future.set_result, number)
            future.result()
    loop.call_soon_threadsafe(loop.stop)
    return [watch.rate("asks", count)]


_LOOP = "in one loop"
CLAIM.case(_LOOP, full=200_000, quick=50_000, targets={"tells": at_least(1e6)})(send_in_loop)
CLAIM.case(_LOOP, by="deque", kind="floor", full=200_000, quick=50_000)(deque_calls)
CLAIM.case("in one loop, awaited", full=50_000, quick=20_000, targets={"asks": at_least(100e3)})(ask_in_loop)
CLAIM.case("in one loop, awaited", by="asyncio future", kind="floor", full=50_000, quick=20_000)(
    asyncio_futures
)

for _cores, _case in ((1, "from another thread, one core"), (2, "from another thread, two cores")):
    _targets = {"tells": at_least(1e6)} if _cores == 1 else {}
    _asks = {"asks": at_least(50e3)} if _cores == 1 else {}
    for _by, _kind, _send, _ask in (
        ("polypod", "ours", _sent_by_a_thread(_Counter), _asked_by_a_thread(_Counter)),
        ("asyncio", "floor", raw_sends, raw_asks),
        ("pykka threads", "peer", _sent_by_a_thread(_ThreadCounter), _asked_by_a_thread(_ThreadCounter)),
    ):
        _ours = _by == "polypod"
        CLAIM.case(
            _case,
            by=_by,
            kind=_kind,  # type: ignore[arg-type]
            full=200_000,
            quick=50_000,
            targets=_targets if _ours else {},
        )(pinned(_cores, _send))
        CLAIM.case(
            f"{_case}, waited for",
            by=_by,
            kind=_kind,  # type: ignore[arg-type]
            full=20_000,
            quick=5_000,
            targets=_asks if _ours else {},
        )(pinned(_cores, _ask))
