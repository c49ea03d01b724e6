"""A forked child: what is its parent's answers it with an error at once, and what it makes itself works."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from child_kit import in_child

from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.runtime.events.subscription import Subscription
from actors.system import PodSystem
from actors.tools.base import Tool, ToolContext, tool
from protocol.errors import StoreError, SystemNotRunning, SystemOfParent
from protocol.manifest import PodManifest

PLAIN = PodManifest.of(name="p")

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


@tool
def work() -> str:
    """A plain tool, which needs a thread."""
    return "worked"


def lives(store: str = "memory:") -> bool:
    """Whether a system of one's own works here, plain tools and all, in a thread and on a loop."""
    client = ScriptedClient([call("work"), say("done")])
    with PodSystem(store) as system:
        pod = system.spawn(PLAIN, client=client, tools=[work]).get(timeout=60)
        if pod.run("go").get(timeout=60).text != "done":
            return False

    async def main() -> bool:
        async with PodSystem(store) as system:
            pod = await system.spawn(PLAIN, client=ScriptedClient([call("work"), say("done")]), tools=[work])
            return (await pod.run("go")).text == "done"

    return asyncio.run(main())


def refuses(ask: Callable[[], Any]) -> bool:
    """Whether what is asked is answered as what belongs to the parent."""
    try:
        ask()
    except SystemOfParent:
        return True
    return False


def all_refuse(system: PodSystem, pod: Pod, run: Any, events: Subscription) -> bool:
    """Whether all that a child may try with a running system of its parent is refused at once."""
    tries: list[Callable[[], Any]] = [
        lambda: system.spawn(PLAIN, client=ScriptedClient([])),
        system.subscribe,
        system.interrupted,
        system.stop,
        lambda: system.store,
        system.__enter__,
        lambda: system.__exit__(None, None, None),
        lambda: pod.run("x"),
        lambda: pod.stream("x"),
        pod.cancel,
        pod.describe,
        pod.stop,
        pod.subscribe,
        lambda: events.get(timeout=60),
        run.get,
        lambda: asyncio.run(_awaited(run)),
        lambda: asyncio.run(_leave(system)),
    ]
    system.__exit__(SystemExit, SystemExit(0), None)  # an exception that is under way is not hidden
    return all(map(refuses, tries))


async def _awaited(future: Any) -> Any:
    return await future


async def _leave(system: PodSystem) -> None:
    await system.__aexit__(None, None, None)


class Hangs:
    """A plain tool that holds its thread until it is let go."""

    def __init__(self) -> None:
        self.begun, self.release = threading.Event(), threading.Event()

    def tool(self) -> Tool:
        def hang() -> str:
            self.begun.set()
            self.release.wait(20)
            return "late"

        return tool(hang)


def test_before_any_system_is_entered_and_after_it_was_left_a_child_is_free() -> None:
    unused = PodSystem()
    assert in_child(lives) == 0
    assert lives()
    assert in_child(lives) == 0  # the parent's threads and loops are not there
    with PodSystem() as system:
        pod = system.spawn(PLAIN, client=ScriptedClient([])).get()

    def after() -> bool:
        system.stop().get(timeout=60)
        with pytest.raises(SystemNotRunning, match="has been left"):
            system.subscribe()
        with unused as own:
            own.spawn(PLAIN, client=ScriptedClient([])).get(timeout=60)
        return not pod.ref.is_alive()

    assert in_child(after) == 0


@pytest.mark.parametrize("kind", ["sqlite", "jsonl", "memory"])
def test_a_system_with_a_pod_at_rest_and_one_in_mid_run(tmp_path: Path, kind: str) -> None:
    store = {"sqlite": f"sqlite:{tmp_path / 'a.db'}", "jsonl": f"jsonl:{tmp_path}", "memory": "memory:"}[kind]
    hang = Hangs()
    with PodSystem(store) as system:
        resting = system.spawn(PLAIN, client=ScriptedClient([say("one"), say("two")])).get()
        resting.run("go").get(timeout=60)
        client = ScriptedClient([call("hang"), say("done")])
        running = system.spawn(PLAIN, client=client, tools=[hang.tool()]).get()
        run = running.run("go")
        assert hang.begun.wait(60)
        with resting.subscribe() as events:
            assert in_child(lambda: all_refuse(system, resting, run, events)) == 0
            assert in_child(lambda: all_refuse(system, running, run, events)) == 0
            assert in_child(lives) == 0
        # The parent goes on unharmed.
        hang.release.set()
        assert run.get(timeout=60).text == "done"
        assert resting.run("more").get(timeout=60).text == "two"
        session = resting.describe().get().session_id
    with PodSystem(store) as system:
        if kind != "memory":
            again = system.spawn(PLAIN, client=ScriptedClient([]), resume=session).get()
            assert [item.text for item in again.history().get()] == ["go", "one", "more", "two"]


def test_a_database_that_the_parent_had_open_is_refused_and_any_other_is_not(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path / 'a.db'}"

    def refused() -> bool:
        link = tmp_path / "link.db"
        link.symlink_to("a.db")
        for url in (store, f"sqlite:{link}"):
            with PodSystem(url) as system, pytest.raises(StoreError, match="open in the parent process"):
                system.spawn(PLAIN, client=ScriptedClient([])).get(timeout=60)
        return lives(f"sqlite:{tmp_path / 'b.db'}")

    with PodSystem(store) as system:
        pod = system.spawn(PLAIN, client=ScriptedClient([say("one")])).get()
        assert in_child(refused) == 0
        assert pod.run("go").get(timeout=60).text == "one"
    assert in_child(lambda: lives(store)) == 0


def test_a_database_that_the_parent_had_open_is_refused_by_its_new_name_too(tmp_path: Path) -> None:
    def refused() -> bool:
        (tmp_path / "a.db").rename(tmp_path / "moved.db")
        moved = f"sqlite:{tmp_path / 'moved.db'}"
        with PodSystem(moved) as own, pytest.raises(StoreError, match="open in the parent process"):
            own.store.sessions()
        return lives(f"sqlite:{tmp_path / 'a.db'}")

    with PodSystem(f"sqlite:{tmp_path / 'a.db'}") as system:
        system.spawn(PLAIN, client=ScriptedClient([])).get()
        assert in_child(refused) == 0


async def test_a_child_of_a_loop_in_the_middle_of_async_with() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=ScriptedClient([say("one")]))
        run = pod.run("go")
        with pod.subscribe() as events:
            assert in_child(lambda: all_refuse(system, pod, run, events) and lives()) == 0
        assert (await run).text == "one"


def test_a_child_of_a_tools_thread() -> None:
    found: list[int] = []

    @tool
    def forks(ctx: ToolContext) -> str:
        found.append(in_child(lives))
        ctx.progress("forked")
        return "forked"

    with PodSystem() as system:
        client = ScriptedClient([call("forks"), call("forks"), say("done")])
        pod = system.spawn(PLAIN, client=client, tools=[forks]).get()
        assert pod.run("go").get(timeout=60).text == "done"
    assert found == [0, 0]


async def test_signals_of_a_child_are_no_signals_of_its_parent_and_end_it() -> None:
    received: list[int] = []
    loop = asyncio.get_running_loop()
    numbers = signal.SIGTERM, signal.SIGINT
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        loop.add_signal_handler(number, received.append, number)

    @tool
    def forks() -> list[int]:
        return [in_child(lambda: os.kill(os.getpid(), number)) for number in numbers]  # noqa: B023

    try:
        async with PodSystem() as system:
            client = ScriptedClient([call("forks"), say("done")])
            pod = await system.spawn(PLAIN, client=client, tools=[forks])
            await pod.run("go")
            assert (await pod.history())[2].text == "[-15,3]"  # type: ignore[union-attr]  # 3: KeyboardInterrupt
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
    assert not received


def test_an_interrupt_of_a_child_interrupts_it_and_cancels_nothing_of_its_parents() -> None:
    def forks() -> int:
        return in_child(lambda: signal.raise_signal(signal.SIGINT))

    async def main() -> str:
        async with PodSystem() as system:
            client = ScriptedClient([call("forks"), say("done")])
            pod = await system.spawn(PLAIN, client=client, tools=[forks])
            await pod.run("go")
            return (await pod.history())[2].text  # type: ignore[union-attr]

    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # which asyncio.run puts its own in place of
    try:
        assert asyncio.run(main()) == "3"
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_copy_of_a_loop_that_a_child_has_does_not_run_and_the_parents_goes_on(tmp_path: Path) -> None:
    """A child that leaves an async tool instead of ending, in a process that waits for threads afterwards."""
    command = [sys.executable, "-c", _FORKS_IN_ASYNC_TOOL, f"sqlite:{tmp_path / 'a.db'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.splitlines() == ["the child ended by SystemOfParent", "parent: done, again"], (
        done.stderr
    )
    assert done.returncode == 0


_FORKS_IN_ASYNC_TOOL = """
import asyncio, os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from polypod import PodManifest, PodSystem, SystemOfParent, tool
from polypod.testing import ScriptedClient, call, say
parent = os.getpid()

@tool
async def forks() -> str:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return "forked"

async def main():
    async with PodSystem(sys.argv[1]) as system:
        client = ScriptedClient([call("forks"), say("done"), say("again")])
        pod = await system.spawn(PodManifest.of(), client=client, tools=[forks])
        texts = [(await pod.run("go")).text, (await pod.run("go on")).text]
    assert os.getpid() == parent
    await asyncio.to_thread(print, "parent: " + ", ".join(texts))

try:
    asyncio.run(main())
except SystemOfParent:
    assert os.getpid() != parent
    print("the child ended by SystemOfParent", flush=True)
    os._exit(0)
"""


def test_a_child_that_is_made_while_the_system_stops() -> None:
    hang = Hangs()
    with PodSystem(grace=0.2) as system:

        async def deaf() -> str:
            released = asyncio.ensure_future(asyncio.to_thread(hang.release.wait, 60))
            hang.begun.set()
            while not released.done():
                try:
                    await asyncio.shield(released)
                except asyncio.CancelledError:
                    stopping.set()
            return "late"

        stopping = threading.Event()
        pod = system.spawn(PLAIN, client=ScriptedClient([call("deaf")]), tools=[deaf]).get()
        run = pod.run("go")
        assert hang.begun.wait(60)
        stop = system.stop()
        assert stopping.wait(60)
        assert in_child(lambda: refuses(system.stop) and refuses(stop.get) and lives()) == 0
        stop.get(timeout=60)
        hang.release.set()
        assert run.get().outcome == "paused"


def test_a_child_that_leaves_the_block_by_sys_exit_ends_at_once_and_harms_nobody(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path / 'a.db'}"
    with PodSystem(store) as system:
        pod = system.spawn(PLAIN, client=ScriptedClient([say("one"), say("two")])).get()
        pod.run("go").get(timeout=60)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            process = multiprocessing.get_context("fork").Process(target=sys.exit)
            process.start()
        process.join(60)
        assert process.exitcode == 0
        assert pod.run("more").get(timeout=60).text == "two"
