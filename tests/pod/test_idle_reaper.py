"""The idle reaper: who is idle for long is found, by one timer, and nobody else is looked at."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

from stepped_loop import SteppedLoop, run_stepped

from actors.pod.idle_reaper import IdleReaper

AFTER = 60.0


class Sleeper:
    """Goes to rest where it is let, and counts how often it was asked."""

    def __init__(self, *, busy: bool = False) -> None:
        self.active_at = 0.0
        self.watched = False
        self.ended = False
        self.busy = busy
        self.asked = 0

    def passivate(self) -> bool:
        self.asked += 1
        return not self.busy


class CountingLoop(SteppedLoop):
    """Counts the timers that were set."""

    timers = 0

    def call_at(self, *args: Any, **options: Any) -> asyncio.TimerHandle:
        self.timers += 1
        return super().call_at(*args, **options)


def swept(play: Callable[[IdleReaper, CountingLoop], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CountingLoop)
        await play(IdleReaper(AFTER, loop), loop)

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        runner.run(main())


async def passes(loop: SteppedLoop, seconds: float) -> None:
    loop.step(seconds)
    for _ in range(3):
        await asyncio.sleep(0)


def test_who_was_idle_for_the_set_time_is_asked_to_rest_once() -> None:
    async def play(sweep: IdleReaper, loop: CountingLoop) -> None:
        pod = Sleeper()
        sweep.watch(pod)
        await passes(loop, AFTER - 1)
        assert pod.asked == 0
        await passes(loop, 2)
        assert pod.asked == 1
        await passes(loop, 10 * AFTER)
        assert pod.asked == 1

    swept(play)


def test_activity_counts_from_its_own_moment() -> None:
    async def play(sweep: IdleReaper, loop: CountingLoop) -> None:
        pod = Sleeper()
        sweep.watch(pod)
        await passes(loop, AFTER / 2)
        pod.active_at = sweep.now()
        await passes(loop, AFTER - 1)
        assert pod.asked == 0
        await passes(loop, 2)
        assert pod.asked == 1

    swept(play)


def test_who_is_busy_is_asked_again_later() -> None:
    async def play(sweep: IdleReaper, loop: CountingLoop) -> None:
        pod = Sleeper(busy=True)
        sweep.watch(pod)
        await passes(loop, AFTER + 1)
        pod.busy = False
        pod.active_at = sweep.now()
        await passes(loop, AFTER - 1)
        assert pod.asked == 1
        await passes(loop, 2)
        assert pod.asked == 2

    swept(play)


def test_ten_thousand_pods_take_one_timer() -> None:
    async def play(sweep: IdleReaper, loop: CountingLoop) -> None:
        pods = [Sleeper() for _ in range(10_000)]
        for pod in pods:
            sweep.watch(pod)
            sweep.watch(pod)
        assert loop.timers == 1
        loop.step(AFTER + 1)
        for _ in range(1000):  # it leaves the loop its turn
            await asyncio.sleep(0)
        assert {pod.asked for pod in pods} == {1}

    swept(play)


def test_where_all_rest_no_timer_runs() -> None:
    async def play(sweep: IdleReaper, loop: CountingLoop) -> None:
        pod = Sleeper()
        sweep.watch(pod)
        await passes(loop, AFTER + 1)
        timers = loop.timers
        await passes(loop, 10 * AFTER)
        assert loop.timers == timers
        sweep.watch(pod)
        await passes(loop, AFTER + 1)
        assert pod.asked == 2

    swept(play)


def test_who_has_stopped_is_let_be_and_let_go() -> None:
    async def play(sweep: IdleReaper, loop: CountingLoop) -> None:
        stopped, gone = Sleeper(), Sleeper()
        sweep.watch(stopped)
        sweep.watch(gone)
        stopped.ended = True
        left = weakref.ref(gone)
        del gone
        gc.collect()
        assert left() is None
        await passes(loop, AFTER + 1)
        assert stopped.asked == 0

    swept(play)


def test_a_sweep_that_was_stopped_asks_nobody() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppedLoop)
        sweep, pod = IdleReaper(AFTER, loop), Sleeper()
        sweep.watch(pod)
        sweep.stop()
        await passes(loop, AFTER + 1)
        assert pod.asked == 0

    run_stepped(main())
