"""Work in threads: which thread does it, and who waits for it to its end."""

import asyncio
import gc
import threading
import weakref

import pytest

from actors.runtime.in_thread import begin_in_thread, end_threads, in_thread, wait_to_the_end


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


async def test_where_no_thread_can_be_started_the_calling_one_does_the_work_and_no_other_again():
    end_threads()
    done_by: list[threading.Thread] = []
    size = threading.stack_size(1 << 46)  # more than there is
    try:
        await in_thread(lambda: done_by.append(threading.current_thread()))
    finally:
        threading.stack_size(size)
    assert done_by == [threading.current_thread()]
    assert (
        await in_thread(threading.current_thread) is not threading.current_thread()
    )  # behind what was queued
    assert len(done_by) == 1


class RefError(Exception):
    """One that weak references can refer to."""


async def test_an_error_of_a_thread_is_let_go_of_by_who_waited_for_it():
    def fail() -> None:
        raise RefError

    async def failed() -> weakref.ref[RefError]:
        try:
            await in_thread(fail)
        except RefError as error:
            return weakref.ref(error)
        raise AssertionError

    gc.disable()
    try:
        error = await failed()
        await in_thread(len, "")  # the thread has left what it did before
        assert error() is None
    finally:
        gc.enable()
