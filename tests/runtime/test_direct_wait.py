"""``DirectWait``: its task goes on within the call that ends it, or in its turn; a cancel does not reach it."""

import asyncio
from collections.abc import Callable

import pytest

from actors.runtime.interruptible import DirectWait, to_its_end


async def waiting(wait: DirectWait, then: list[str]) -> None:
    try:
        await to_its_end(wait)
    except ValueError as error:
        then.append(str(error))
    else:
        then.append("went on")


async def ended(end: Callable[[DirectWait], None]) -> tuple[list[str], list[str]]:
    """What the task did within ``end``, called by the loop itself, and in all."""
    loop = asyncio.get_running_loop()
    wait, then, within = DirectWait(loop=loop), [], []
    task = asyncio.create_task(waiting(wait, then))
    await asyncio.sleep(0)

    def end_wait() -> None:
        end(wait)
        within.extend(then)

    loop.call_soon(end_wait)
    await task
    return within, then


def test_who_waits_goes_on_within_the_call_or_in_its_turn():
    assert asyncio.run(ended(DirectWait.end_at_once)) == (["went on"], ["went on"])
    assert asyncio.run(ended(DirectWait.end)) == ([], ["went on"])
    assert asyncio.run(ended(lambda wait: wait.end(ValueError("full")))) == ([], ["full"])


async def test_an_error_that_nobody_waits_for_is_let_be():
    DirectWait(loop=asyncio.get_running_loop()).end(ValueError("full"))


def test_a_cancel_comes_after_the_end():
    async def main() -> list[str]:
        wait, then = DirectWait(loop=asyncio.get_running_loop()), []
        task = asyncio.create_task(waiting(wait, then))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        asyncio.get_running_loop().call_soon(wait.end_at_once)
        await asyncio.wait({task})
        return then

    assert asyncio.run(main()) == ["went on"]


def test_what_ends_the_loop_is_not_for_who_ends_the_wait():
    after = []

    async def exits(wait: DirectWait) -> None:
        await to_its_end(wait)
        raise KeyboardInterrupt

    async def main() -> None:
        loop = asyncio.get_running_loop()
        wait = DirectWait(loop=loop)
        task = asyncio.create_task(exits(wait))
        task.add_done_callback(lambda task: task.exception())
        await asyncio.sleep(0)

        def end() -> None:
            wait.end_at_once()
            after.append("all others hear of theirs")

        loop.call_soon(end)
        await asyncio.wait({task})

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert after == ["all others hear of theirs"]
