"""The thread pool keeps its bound, and hanging work neither starves it nor keeps the process."""

from __future__ import annotations

import asyncio
import contextvars
import random
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from actors.runtime.blocking import blocked
from actors.tools.thread_pool import ToolThreads
from protocol.errors import ToolError, ToolTimeout


def test_no_more_threads_than_the_limit_work_at_once():
    pool = ToolThreads(3)
    lock, now, most = threading.Lock(), 0, 0
    gate = threading.Barrier(3, timeout=60)

    def work() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        gate.wait()
        with lock:
            now -= 1

    async def main() -> None:
        await asyncio.gather(*(pool.call(work) for _ in range(30)))

    asyncio.run(main())
    assert most == 3
    assert "3 of 3" in repr(pool)


def test_work_that_was_given_up_does_not_starve_the_rest():
    pool = ToolThreads(1)
    hang = threading.Event()

    async def main() -> str:
        with pytest.raises(ToolTimeout, match="still be running"):
            await pool.call(lambda: hang.wait(10), seconds=0.01)
        return await pool.call(lambda: "free")

    assert asyncio.run(main()) == "free"
    assert "1 lost" in repr(pool)
    hang.set()


async def test_when_as_many_are_lost_as_there_may_be_the_next_waits_and_its_time_does_not_count():
    pool = ToolThreads(1)
    hang = threading.Event()

    for _ in range(2):
        with pytest.raises(ToolTimeout, match="still be running"):
            await pool.call(lambda: hang.wait(10), seconds=0.01)
    waits = asyncio.create_task(pool.call(lambda: "waited", seconds=0.2))
    await asyncio.wait({waits}, timeout=0.25)
    assert not waits.done()
    hang.set()
    assert await waits == "waited"
    assert await pool.call(lambda: "back") == "back"


def test_a_cancelled_wait_drops_work_that_has_not_begun():
    pool = ToolThreads(1)
    hang, ran = threading.Event(), []

    async def main() -> None:
        first = asyncio.create_task(pool.call(lambda: hang.wait(10)))
        second = asyncio.create_task(pool.call(lambda: ran.append("second")))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        hang.set()
        await first
        await pool.call(lambda: ran.append("third"))

    asyncio.run(main())
    assert ran == ["third"]


async def test_what_the_work_raises_reaches_who_waits():
    with pytest.raises(ZeroDivisionError):
        await ToolThreads(1).call(lambda: 1 // 0)


def test_a_waiter_whose_loop_is_closed_is_passed_over():
    pool = ToolThreads(1)
    hang = threading.Event()

    async def leave() -> None:
        asyncio.create_task(pool.call(lambda: hang.wait(10)))  # noqa: RUF006
        await asyncio.sleep(0)

    asyncio.run(leave())
    hang.set()
    assert asyncio.run(pool.call(lambda: 7)) == 7


def test_a_closed_pool_ends_its_threads_and_takes_no_more():
    pool = ToolThreads(2, name="closing")
    asyncio.run(pool.call(lambda: None))
    (thread,) = [t for t in threading.enumerate() if t.name.startswith("closing")]
    pool.close()
    pool.close()
    thread.join(60)
    assert not thread.is_alive()
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(pool.call(lambda: None))


def test_a_pool_has_at_least_one_thread():
    with pytest.raises(ValueError, match="at least 1"):
        ToolThreads(0)


def test_a_hanging_tool_does_not_keep_the_process_from_ending():
    program = (
        "import asyncio, threading\n"
        "from actors.tools.thread_pool import ToolThreads\n"
        "from protocol.errors import ToolError, ToolTimeout\n"
        "async def main():\n"
        "    try: await ToolThreads(1).call(threading.Event().wait, seconds=0.01)\n"
        "    except ToolTimeout: print('left')\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "left\n"), done.stderr


def test_work_sees_the_context_variables_of_who_calls_and_changes_none_of_them():
    name = contextvars.ContextVar("name", default="nobody's")

    def work() -> str:
        seen = name.get()
        name.set("the thread's")
        return seen

    async def main() -> tuple[str, str]:
        name.set("the caller's")
        return await ToolThreads(1).call(work), name.get()

    assert asyncio.run(main()) == ("the caller's", "the caller's")


async def test_work_that_blocks_has_a_thread_each_also_where_it_comes_at_once():
    pool = ToolThreads(8)
    together = threading.Barrier(8)

    await asyncio.gather(*(pool.call(lambda: None) for _ in range(20)))  # some threads are there already
    await asyncio.gather(*(pool.call(lambda: together.wait(60)) for _ in range(8)))


def test_many_loops_share_a_pool_and_each_gets_its_own_results():
    pool = ToolThreads(3)
    got: dict[int, list[tuple[int, int]]] = {}

    async def calls(loop: int) -> list[tuple[int, int]]:
        first = [await pool.call(lambda n=n: (loop, n)) for n in range(100)]
        return first + await asyncio.gather(*(pool.call(lambda n=n: (loop, n)) for n in range(100, 200)))

    def serve(loop: int) -> None:
        got[loop] = asyncio.run(calls(loop))

    threads = [threading.Thread(target=serve, args=(loop,)) for loop in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got == {loop: [(loop, n) for n in range(200)] for loop in range(4)}


def test_waits_that_end_in_every_way_leave_a_pool_that_is_whole():
    pool = ToolThreads(4, name="mixed")
    chance = random.Random(7)
    gates = [threading.Event() for _ in range(300)]

    async def one(gate: threading.Event) -> None:
        kind = chance.randrange(4)
        if kind == 0:
            await pool.call(lambda: None)
        elif kind == 1:
            with pytest.raises(ToolTimeout):
                await pool.call(lambda: gate.wait(20), seconds=chance.random() / 1000)
        else:
            task = asyncio.create_task(pool.call(lambda: gate.wait(20)))
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        gate.set()

    async def main() -> None:
        await asyncio.gather(*map(one, gates))
        together = threading.Barrier(4)
        await asyncio.gather(*(pool.call(lambda: together.wait(60)) for _ in range(4)))

    asyncio.run(main())
    pool.close()
    join_all("mixed")
    assert repr(pool) == "<ToolThreads 0 of 4, 0 lost, 0 waiting>"


async def test_work_that_is_given_up_behind_its_end_leaves_its_place_though_its_thread_has_left():
    pool = ToolThreads(1)
    loop = asyncio.get_running_loop()
    waits, begun, goes_on, worked, may_end = (
        asyncio.Event(),
        asyncio.Event(),
        *(threading.Event() for _ in range(3)),
    )
    threads: list[threading.Thread] = []

    def wait_for_others() -> None:
        with blocked():
            loop.call_soon_threadsafe(waits.set)
            goes_on.wait(60)
        worked.set()  # there is one thread more than there may be
        may_end.wait(60)

    def work() -> None:
        threads.append(threading.current_thread())
        loop.call_soon_threadsafe(begun.set)
        worked.wait(60)

    first = asyncio.create_task(pool.call(wait_for_others))
    await waits.wait()
    second = asyncio.create_task(pool.call(work))
    await begun.wait()
    goes_on.set()
    threads[0].join(60)  # its result has not come to the loop
    second.cancel()
    may_end.set()
    await asyncio.gather(first, second, return_exceptions=True)
    assert await pool.call(lambda: "free") == "free"
    assert repr(pool) == "<ToolThreads 1 of 1, 0 lost, 0 waiting>"


def test_what_is_queued_when_a_pool_is_closed_is_done_and_then_its_threads_end():
    pool = ToolThreads(1, name="queued")
    hang = threading.Event()

    async def main() -> list[object]:
        waiting = [asyncio.create_task(pool.call(work)) for work in (lambda: hang.wait(10), lambda: "second")]
        await asyncio.sleep(0)
        pool.close()
        hang.set()
        return await asyncio.gather(*waiting)

    assert asyncio.run(main()) == [True, "second"]
    join_all("queued")


def test_a_call_for_which_no_thread_can_be_started_says_so_and_is_not_done_later():
    pool = ToolThreads(2)
    ran: list[str] = []
    before = threading.stack_size(1 << 62)
    try:
        with pytest.raises(RuntimeError, match="no thread can be started"):
            asyncio.run(pool.call(lambda: ran.append("refused")))
    finally:
        threading.stack_size(before)
    asyncio.run(pool.call(lambda: ran.append("taken")))
    assert ran == ["taken"]


def test_threads_that_are_there_do_what_no_further_thread_can_be_started_for():
    pool = ToolThreads(2)
    hang = threading.Event()

    async def main() -> list[object]:
        loop, begun = asyncio.get_running_loop(), asyncio.Event()

        def work() -> bool:
            loop.call_soon_threadsafe(begun.set)
            return hang.wait(10)

        first = asyncio.create_task(pool.call(work))
        await begun.wait()
        before = threading.stack_size(1 << 62)
        second = asyncio.create_task(pool.call(lambda: "second"))
        await asyncio.sleep(0)
        threading.stack_size(before)
        hang.set()
        return await asyncio.gather(first, second)

    assert asyncio.run(main()) == [True, "second"]
    assert "1 of 2" in repr(pool)


def test_an_idle_thread_keeps_no_work_and_no_result_alive():
    class Thing:
        pass

    async def main() -> None:
        thing = Thing()
        for each, gone in zip(await pool.call(lambda: (thing, Thing())), all_gone, strict=True):
            weakref.finalize(each, gone.set)

    all_gone = threading.Event(), threading.Event()
    pool = ToolThreads(1)
    asyncio.run(main())
    assert all(gone.wait(60) for gone in all_gone)
    assert "1 of 1" in repr(pool)


def join_all(name: str) -> None:
    """Wait for the end of all threads of the pool of that name."""
    for thread in threading.enumerate():
        if thread.name.startswith(name):
            thread.join(60)
            assert not thread.is_alive()


def test_work_is_refused_where_every_thread_is_held_by_work_that_was_given_up() -> None:
    release = threading.Event()

    async def main() -> None:
        pool = ToolThreads(1, stuck_wait=0.05)
        ended = [asyncio.Event(), asyncio.Event()]
        for number in range(2):  # one is counted as lost, one keeps its place
            with pytest.raises(ToolTimeout):
                await pool.call(release.wait, seconds=0.01, late=lambda _, n=number: ended[n].set())
        with pytest.raises(ToolError, match=r"for 0\.05 s, since 2 abandoned calls"):
            await pool.call(list)
        assert repr(pool).endswith("0 waiting>")
        release.set()
        for each in ended:
            await each.wait()
        assert await pool.call(lambda: "free again") == "free again"
        pool.close()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_work_that_waits_when_the_last_thread_gets_stuck_is_refused_too() -> None:
    release = threading.Event()

    async def main() -> None:
        pool = ToolThreads(1, stuck_wait=0.05)
        with pytest.raises(ToolTimeout):
            await pool.call(release.wait, seconds=0.01)
        stuck = asyncio.create_task(pool.call(release.wait, seconds=0.1))
        await asyncio.sleep(0)
        with pytest.raises(ToolError, match="abandoned calls"):
            await pool.call(list)
        with pytest.raises(ToolTimeout):
            await stuck
        release.set()
        assert await pool.call(lambda: "free again") == "free again"
        pool.close()

    asyncio.run(asyncio.wait_for(main(), 60))


def _in_a_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def _in_an_executor(work: Callable[[], object]) -> None:
    with ThreadPoolExecutor() as threads:
        threads.submit(work).result()


def _in_its_own_loop(work: Callable[[], object]) -> None:
    async def wait() -> None:
        await asyncio.to_thread(work)

    asyncio.run(wait())


@pytest.mark.parametrize("in_course_of", [_in_a_thread, _in_an_executor, _in_its_own_loop])
async def test_work_that_others_wait_for_elsewhere_has_a_thread_though_those_hold_all(
    in_course_of: Any,
) -> None:
    pool, loop = ToolThreads(2, look_wait=0.01), asyncio.get_running_loop()

    def ask() -> str:
        said: list[str] = []
        inner = pool.call(lambda: "done")
        in_course_of(lambda: said.append(asyncio.run_coroutine_threadsafe(inner, loop).result()))
        return said[0]

    # One more than there are threads, begun in one burst.
    assert await asyncio.wait_for(asyncio.gather(*(pool.call(ask) for _ in range(3))), 30) == ["done"] * 3
    assert await pool.call(lambda: "again") == "again"
    async with asyncio.timeout(30):
        while pool._working > 2:  # the one more leaves at the end of a piece of work
            await pool.call(list)
