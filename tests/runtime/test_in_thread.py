"""Work in threads that is waited for to its end."""

import asyncio
import threading

import pytest

from actors.runtime.in_thread import begin_in_thread, wait_to_the_end


async def test_who_is_cancelled_again_and_again_waits_for_the_work_to_its_end():
    may_end, ended = threading.Event(), []

    def work() -> None:
        may_end.wait(60)
        ended.append(True)

    waiting = asyncio.ensure_future(wait_to_the_end(begin_in_thread(work)))
    for _ in range(3):
        await asyncio.sleep(0)
        waiting.cancel()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended == [True]
    assert await wait_to_the_end(begin_in_thread(len, "abc")) == 3
