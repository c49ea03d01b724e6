"""The thread pool keeps its bound, and hanging work neither starves it nor keeps the process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from actors.tools.pool import ToolThreads
from protocol.errors import ToolTimeout


def test_no_more_threads_than_the_limit_work_at_once():
    pool = ToolThreads(3)
    lock, now, most = threading.Lock(), 0, 0
    gate = threading.Barrier(3, timeout=10)

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
        with pytest.raises(ToolTimeout, match="still be at work"):
            await pool.call(lambda: hang.wait(10), seconds=0.01)
        return await pool.call(lambda: "free")

    assert asyncio.run(main()) == "free"
    assert "1 lost" in repr(pool)
    hang.set()


def test_when_as_many_are_lost_as_there_may_be_the_next_waits_and_says_it_never_began():
    pool = ToolThreads(1)
    hang = threading.Event()

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(ToolTimeout, match="still be at work"):
                await pool.call(lambda: hang.wait(10), seconds=0.01)
        with pytest.raises(ToolTimeout, match="was not started"):
            await pool.call(lambda: None, seconds=0.01)
        hang.set()
        assert await pool.call(lambda: "back") == "back"

    asyncio.run(main())


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


def test_what_the_work_raises_reaches_who_waits():
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await ToolThreads(1).call(lambda: 1 // 0)

    asyncio.run(main())


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
    thread.join(10)
    assert not thread.is_alive()
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(pool.call(lambda: None))


def test_a_pool_has_at_least_one_thread():
    with pytest.raises(ValueError, match="at least 1"):
        ToolThreads(0)


def test_a_hanging_tool_does_not_keep_the_process_from_ending():
    program = (
        "import asyncio, threading\n"
        "from actors.tools.pool import ToolThreads\n"
        "from protocol.errors import ToolTimeout\n"
        "async def main():\n"
        "    try: await ToolThreads(1).call(threading.Event().wait, seconds=0.01)\n"
        "    except ToolTimeout: print('left')\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=20
    )
    assert (done.returncode, done.stdout) == (0, "left\n"), done.stderr
