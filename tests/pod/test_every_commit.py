"""A store that refuses, and a process that is killed, at every single commit in turn: nothing is lost but what failed.

POLYPOD_THOROUGH=1   all commits of all scenes, instead of some of them
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from effort import THOROUGH
from every_commit import (
    SCENES,
    Model,
    Refusing,
    check_branches,
    check_children,
    check_ends,
    check_once,
    check_staged,
    check_store,
    hooks,
    lives_on,
    manifest,
    play_scene,
    tools,
)
from pod_stage import all_of
from store_kit import AwaitedStore
from warm import Popen

from actors.system import PodSystem
from protocol.errors import PolypodError

pytestmark = pytest.mark.timeout(900 if THOROUGH else 60)


class Played:
    """A scene that was played over a store, and what came of it."""

    def __init__(self, scene: str, store: Refusing, folder: Path, *, awaited: bool = False) -> None:
        self.scene, self.store, self.folder = scene, store, folder
        self.awaited = awaited
        self.model, self.ran = Model(), list[str]()

    async def play(self) -> None:
        store = AwaitedStore(self.store) if self.awaited else self.store
        async with PodSystem(store, memory=self.folder, hooks=hooks(self.scene)) as system:
            for _ in range(3):  # the first commit of all makes the session
                try:
                    pod = await system.spawn(
                        manifest(self.scene), client=self.model, tools=tools(self.ran.append), name="p"
                    )
                    break
                except PolypodError:
                    continue
            else:
                return
            with system.subscribe("p") as live:
                await play_scene(self.scene, system, pod)
                await self.store.settle()
                self.store.refuses = lambda _: False
                if self.scene == "stop":
                    session = (self.store.sessions(pod="p", limit=1))[0].session_id
                    pod = await system.spawn(
                        manifest(self.scene), client=self.model, tools=tools(self.ran.append), resume=session
                    )
                await lives_on(system, pod)
                published = live.drain()
            events = await all_of(system.subscribe("p", since=0))
            if self.scene != "stop":
                check_ends(published)
            check_ends(events)
            check_children(events)
            check_once(self.ran, events)
            check_staged(self.folder, events)
            check_store(self.store)
            check_branches(self.store, events)
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


def commits(scene: str, folder: Path) -> tuple[int, int]:
    """How many commits a scene makes, and how many requests, where nothing fails."""
    scene_played = Played(scene, Refusing(lambda _: False), folder)
    asyncio.run(scene_played.play())
    return scene_played.store.commits, sum(scene_played.model.asked.values())


FAILS: dict[str, Callable[[int], Callable[[int], bool]]] = {
    "once": lambda k: lambda n: n == k,
    "three times": lambda k: lambda n: k <= n < k + 3,
    "from then on": lambda k: lambda n: n >= k,
}


@pytest.mark.slow
@pytest.mark.parametrize("fails", FAILS)
@pytest.mark.parametrize("scene", SCENES)
def test_a_store_that_refuses_any_commit_leaves_nothing_endless_unanswered_or_unreported(
    tmp_path: Path, scene: str, fails: str
) -> None:
    number, asked = commits(scene, tmp_path / "clean")
    step = 1 if THOROUGH else len(FAILS)
    for k in range(1 + list(FAILS).index(fails) % step, number + 1, step):
        for later in (False, True) if THOROUGH else (k % 2 == 0,):
            store = Refusing(FAILS[fails](k), later=later)
            awaited = k // step % 2 == 1
            scene_played = Played(scene, store, tmp_path / f"{k}{later}", awaited=awaited)
            try:
                asyncio.run(scene_played.play())
                assert sum(scene_played.model.asked.values()) <= asked + 8, scene_played.model.asked
                assert store.commits <= 2 * number + 10
            except BaseException as error:
                error.add_note(f"commit {k} of {number} is refused, {later=}, {awaited=}")
                raise


KILLED = """
import asyncio, os, sys, traceback
sys.path[:0] = {paths!r}
from pathlib import Path
from every_commit import *

async def first(scene, folder, at, after):
    ran = open(folder / "ran", "a", buffering=1)
    async with PodSystem(Killing(folder / "pods.db", at, after=after), memory=folder / "memory",
                         hooks=hooks(scene)) as system:
        pod = await system.spawn(manifest(scene), client=Model(), tools=tools(lambda line: ran.write(line + chr(10))))
        await play_scene(scene, system, pod)
        if scene != "stop":
            await lives_on(system, pod)

async def then(scene, folder):
    ran = open(folder / "ran", "a", buffering=1)
    async with PodSystem(f"sqlite:{{folder}}/pods.db", memory=folder / "memory", hooks=hooks(scene)) as system:
        sessions = system.store.sessions(pod="p", limit=1)
        if not sessions:
            return
        pod = await system.spawn(
            manifest(scene), client=Model(), tools=tools(lambda line: ran.write(line + chr(10))),
            name="p", resume=sessions[0].session_id)
        await lives_on(system, pod)
        events = system.subscribe("p", since=0).drain()
        check_ends(events)
        check_children(events)
        check_once((folder / "ran").read_text().splitlines(), events)
        check_staged(folder / "memory", events)
        check_store(system.store)

def forked(work):
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        asyncio.run(work())
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

scene, folder, step = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
at, failed = 1, 0
while True:
    for after in (False, True) if step == 1 else (at // step % 2 == 1,):
        place = folder / f"{{at}}{{after}}"
        place.mkdir()
        ended = forked(lambda: first(scene, place, at, after))
        if ended == 0:
            sys.exit(failed or (at < 4))
        if ended != -9:
            sys.exit(f"failed before it was killed at commit {{at}}")
        if forked(lambda: then(scene, place)):
            print(f"killed {{'after' if after else 'before'}} commit {{at}}", file=sys.stderr)
            failed = 1
    at += step
"""


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES)
def test_a_process_killed_at_any_commit_is_restored_with_nothing_open_doubled_or_left_over(
    tmp_path: Path, scene: str
) -> None:
    step = 1 if THOROUGH else 7  # each killed before and after it, or in turn
    here = Path(__file__).parent
    program = KILLED.format(paths=[str(here), str(here.parent)])
    command = [sys.executable, "-c", program, scene, str(tmp_path), str(step)]
    with Popen(command, stderr=subprocess.PIPE, text=True) as process:
        _, published = process.communicate()
    assert process.returncode == 0, published[-6000:]
