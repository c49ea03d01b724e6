"""Tasks that begin at once."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from actors.runtime.tasks import begin_task, is_being_cancelled


@pytest.mark.parametrize("debug", [False, True])
def test_work_that_never_waits_is_done_when_its_task_is_there(debug: bool) -> None:
    seen: list[object] = []

    async def work() -> str:
        seen.append(asyncio.current_task())
        return "done"

    async def main() -> None:
        outer = asyncio.current_task()
        task = begin_task(work())
        assert task.done()
        assert asyncio.current_task() is outer
        assert seen == [task]
        assert await task == "done"

    asyncio.run(main(), debug=debug)


async def test_work_that_waits_goes_on_in_its_task_and_in_a_context_of_its_own() -> None:
    variable = contextvars.ContextVar("variable", default="outer")

    async def work() -> str:
        variable.set("inner")
        before = asyncio.current_task()
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
        assert asyncio.current_task() is before
        return variable.get()

    task = begin_task(work())
    assert not task.done()
    assert await task == "inner"
    assert variable.get() == "outer"


async def test_a_failure_and_a_cancel_are_those_of_the_task_alone() -> None:
    async def fail() -> None:
        raise ValueError("x")

    async def cancel_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        assert is_being_cancelled()
        await asyncio.sleep(0)

    with pytest.raises(ValueError, match="x"):
        await begin_task(fail())
    task = begin_task(cancel_itself())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_being_cancelled()


class _Shared(asyncio.SelectorEventLoop):
    """A loop to which another thread gives work in the worst moments: behind a task that is being made, and
    while that work is looked at.
    """

    def __init__(self) -> None:
        super().__init__()
        self.came: list[str] = []
        self.disturbed = False

    def call_soon(self, callback, *args, context=None):
        handle = super().call_soon(callback, *args, context=context)
        if self.disturbed:
            self.disturbed = False
            self.call_soon_threadsafe(_First(self))
        return handle


class _First:
    def __init__(self, loop: _Shared) -> None:
        self.loop = loop

    def __call__(self) -> None:
        self.loop.came.append("first")

    def __getattr__(self, name: str) -> object:
        self.loop.call_soon_threadsafe(self.loop.came.append, "second")
        raise AttributeError(name)


def test_what_another_thread_puts_behind_a_task_keeps_its_order() -> None:
    async def work() -> str:
        return "done"

    async def main() -> str:
        loop.disturbed = True
        task = begin_task(work())
        loop.disturbed = False
        return await task

    loop = _Shared()
    try:
        assert loop.run_until_complete(main()) == "done"
    finally:
        loop.close()
    assert loop.came == sorted(loop.came)
