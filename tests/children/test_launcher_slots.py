"""A launcher bounds how many children are at work: who comes when all places are taken waits in line."""

import asyncio

import pytest
from process_kit import environment

from actors.runtime.children.child import Child
from actors.runtime.children.launcher import Launcher
from protocol.errors import ChildNotStarted, TooManyChildren


async def begin(launcher: Launcher, mark: str, command: str = "cat", wait: float | None = None) -> Child:
    return await launcher.start(
        ["sh", "-c", command], cwd="/", env=environment(mark), stdin="pipe", wait=wait
    )


async def test_who_comes_when_all_places_are_taken_waits_in_line(mark: str) -> None:
    launcher = Launcher(2)
    first, second = await begin(launcher, mark), await begin(launcher, mark)
    third, fourth = (asyncio.create_task(begin(launcher, mark)) for _ in range(2))
    await second.stop()
    assert (await third).pid
    assert not fourth.done()
    await first.stop()
    assert (await fourth).pid
    await launcher.aclose()


async def test_who_waits_for_a_place_for_longer_than_is_said_is_refused_and_learns_what_takes_them(
    mark: str,
) -> None:
    launcher = Launcher(1)
    child = await begin(launcher, mark)
    with pytest.raises(
        TooManyChildren, match=r"cannot start sh: the limit of 1 child processes is reached \(sh\)"
    ) as refused:
        await begin(launcher, mark, wait=0)
    assert (refused.value.program, refused.value.most) == ("sh", 1)
    await child.stop()
    assert await (await begin(launcher, mark, "exit 3", wait=0)).wait()
    await launcher.aclose()


async def test_a_place_comes_back_from_what_was_cancelled_or_could_not_be_started(mark: str) -> None:
    launcher = Launcher(1)
    for _ in range(3):
        with pytest.raises(ChildNotStarted):
            await launcher.start(["/nonexistent/program"], cwd="/", env=environment(mark))
    child = await begin(launcher, mark)
    waiting = [asyncio.create_task(begin(launcher, mark)) for _ in range(3)]
    await asyncio.sleep(0)
    child.ask_to_stop()
    await child.wait()
    waiting[0].cancel()  # it has just been given the place
    waiting[1].cancel()
    assert (await waiting[2]).pid
    await launcher.aclose()


async def test_who_waits_for_a_place_is_refused_once_the_launcher_closes(mark: str) -> None:
    launcher = Launcher(1)
    await begin(launcher, mark)
    waiting = [asyncio.create_task(begin(launcher, mark)) for _ in range(2)]
    await asyncio.sleep(0)
    await launcher.aclose()
    for each in waiting:
        with pytest.raises(ChildNotStarted, match="the launcher is closed"):
            await each
