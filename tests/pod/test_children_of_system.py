"""The tools of a system start children by one launcher, which begins with the first child and ends with the system."""

import asyncio
import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest
from child_kit import in_child
from process_kit import environment, marked, wait_until_none

from actors.llm.scripted import ScriptedClient, call, say
from actors.runtime.children.launcher import Launcher
from actors.system import PodSystem
from actors.tools.base import Tool, ToolContext, tool
from actors.tools.extras import LAUNCHER
from protocol.errors import ChildNotStarted, SystemOfParent
from protocol.manifest import PodManifest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes by /proc")


@pytest.fixture
def mark() -> Iterator[str]:
    name = uuid.uuid4().hex
    yield name
    wait_until_none(lambda: marked(name))


def starter(mark: str, began: list[Launcher]) -> Tool:
    @tool
    async def begin(command: str, ctx: ToolContext) -> str:
        """Start a program."""
        launcher: Launcher = ctx.extras[LAUNCHER]()
        began.append(launcher)
        child = await launcher.start(["sh", "-c", command], cwd="/", env=environment(mark))
        assert child.stdout is not None
        return (await child.stdout.readline()).decode()

    return begin


async def run(system: PodSystem, mark: str, command: str = "echo up; sleep 1000") -> Launcher:
    began: list[Launcher] = []
    client = ScriptedClient([call("begin", {"command": command}), say("ok")])
    pod = await system.spawn(PodManifest.of(), client=client, tools=[starter(mark, began)])
    await pod.run("go")
    return began[0]


async def test_pods_of_a_system_start_children_by_one_launcher_and_those_end_with_the_system(
    mark: str,
) -> None:
    async with PodSystem() as system:
        first, second = await run(system, mark), await run(system, mark)
        assert first is second
        assert len(marked(mark)) >= 2
        helper = first.pid
        assert helper is not None
    assert not marked(mark)
    with pytest.raises(ProcessLookupError):
        os.kill(helper, 0)
    with pytest.raises(ChildNotStarted):
        await first.start(["true"], cwd="/", env={})


async def test_two_systems_of_a_process_have_a_launcher_each(mark: str) -> None:
    async with PodSystem() as outer:
        one = await run(outer, mark)
        async with PodSystem() as inner:
            assert (await run(inner, mark)).pid != one.pid
        assert len(marked(mark)) >= 1  # the outer one's goes on


def test_a_system_with_a_thread_of_its_own_ends_its_children_too(mark: str) -> None:
    with PodSystem() as system:
        began: list[Launcher] = []
        client = ScriptedClient([call("begin", {"command": "echo up; sleep 1000"}), say("ok")])
        pod = system.spawn(PodManifest.of(), client=client, tools=[starter(mark, began)]).get(timeout=60)
        pod.run("go").get(timeout=60)
        assert marked(mark)
    assert not marked(mark)


def test_children_end_where_the_loop_was_closed_and_the_system_never_left(mark: str) -> None:
    left: list[PodSystem] = []

    async def enter_and_leave_open() -> None:
        system = PodSystem()
        left.append(await system.__aenter__())
        await run(system, mark)

    asyncio.run(enter_and_leave_open())

    async def enter() -> None:
        async with PodSystem():
            pass

    asyncio.run(enter())
    wait_until_none(lambda: marked(mark))


async def test_a_forked_process_that_ends_takes_no_child_of_its_parent_with_it(mark: str) -> None:
    async with PodSystem() as system:
        launcher = await run(system, mark)

        def use_what_is_the_parents() -> bool:
            with pytest.raises(SystemOfParent):
                system.spawn(PodManifest.of())
            return launcher.pid is None

        assert await asyncio.to_thread(in_child, use_what_is_the_parents) == 0
        assert marked(mark)
        assert await run(system, mark) is launcher


async def test_a_system_has_no_more_children_at_work_than_it_was_allowed(mark: str) -> None:
    async with PodSystem(processes=1) as system:
        await run(system, mark, "echo up")
        launcher = await run(system, mark)
        child = asyncio.create_task(launcher.start(["true"], cwd="/", env=environment(mark)))
        await asyncio.sleep(0)
        assert not child.done()
        for pid in marked(mark):
            with contextlib.suppress(ProcessLookupError):  # one may end with another
                os.kill(pid, 9)
        assert (await (await child).wait()).code == 0
    with pytest.raises(ValueError, match="processes"):
        PodSystem(processes=0)


def test_a_system_without_children_loads_nothing_of_them() -> None:
    program = """
import asyncio, sys
from polypod import PodManifest, PodSystem
async def main():
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(tools={"builtin": ["files", "search"]}))
        await pod.run("hello")
    print([name for name in sys.modules if "children" in name or name == "actors.tools.confinement.sandbox"])
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
