"""Children of every kind, stopped and killed at moments by chance: nothing is left, whoever is killed."""

import asyncio
import contextlib
import gc
import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from effort import times
from process_kit import DEAF, children_of, descriptors, environment, living, marked, wait_until_none

from actors.runtime.children.child import Child, Ladder
from actors.runtime.children.launcher import Launcher
from protocol.errors import ChildError

QUICK = Ladder(signal.SIGINT, request_wait=0.02, term_wait=0.05)
PROGRAMS = {
    "ends": "echo ready",
    "waits": "echo ready; exec sleep 1000",
    "is deaf": DEAF + "echo ready; while :; do sleep 1000; done",
    "leaves a daemon": f'setsid sh -c "{DEAF} exec sleep 1000" & echo ready',
    "forks a tree": "for i in 1 2 3; do (sleep 1000 & (setsid sleep 1000 &); sleep 1000) & done; echo ready; wait",
    "goes on forking": "echo ready; f() { (f &); }; g() { (sleep 0.01; g) & }; g; exec sleep 1000",
    "floods": "echo ready; exec yes",
    "has stopped": "echo ready; kill -STOP $$",
    "stops its warden": "echo ready; kill -STOP $PPID; exec sleep 1000",
    "stops its launcher": "echo ready; kill -STOP $(cut -d ' ' -f 4 /proc/$PPID/stat); exec sleep 1000",
    "stops both": "echo ready; kill -STOP $(cut -d ' ' -f 4 /proc/$PPID/stat) $PPID; exec sleep 1000",
    "closes all": "echo ready; exec >&- 2>&-; exec sleep 1000",
    "kills its warden": "echo ready; (setsid sleep 1000 &); kill -KILL $PPID; exec sleep 1000",
    "is not a program": "",
}  # fmt: skip
KINDS = tuple(PROGRAMS)
#: Those that do not kill what owns them: where the launcher is killed too, nobody would own what they leave.
OWNED = tuple(kind for kind in KINDS if kind != "kills its warden")


async def live(launcher: Launcher, mark: str, chance: random.Random, kinds: Sequence[str] = KINDS) -> str:
    """The life of one child, to an end of its own or of somebody else's choosing; which kind it was."""
    kind = chance.choice(kinds)
    argv = ["sh", "-c", PROGRAMS[kind]] if PROGRAMS[kind] else ["no-such-program"]
    try:
        child = await launcher.start(argv, cwd="/", env=environment(mark), stdin="pipe", ladder=QUICK)
        assert child.stdout is not None
        if chance.random() < 0.7:
            await child.stdout.read(6)
        await end(child, chance)
    except ChildError:
        pass
    return kind


async def end(child: Child, chance: random.Random) -> None:
    how = chance.choice(["stop", "kill", "leave", "close"])
    if how == "stop":
        await child.stop()
    elif how == "kill":
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
        child.ask_to_stop()
        await child.wait()
    elif how == "close":
        assert child.stdin is not None
        child.stdin.close()
        await child.stop(Ladder(request_wait=0, term_wait=0.01))
    # else its launcher will have to see to it


@pytest.mark.parametrize("killed", [0, 0.1])
@pytest.mark.parametrize("seed", range(times(2)))
async def test_nothing_is_left_of_children_of_every_kind(
    launcher: Launcher, mark: str, seed: int, killed: float
) -> None:
    chance = random.Random(seed)
    before = descriptors()
    helpers: set[int] = set()
    lives = [
        asyncio.ensure_future(live(launcher, mark, chance, OWNED if killed else KINDS)) for _ in range(40)
    ]
    for each in lives:
        await each
        if launcher.pid is not None and chance.random() < killed:
            helpers |= {launcher.pid, *children_of(launcher.pid)} - marked(mark)
            os.kill(launcher.pid, signal.SIGKILL)
    if launcher.pid is not None:
        helpers |= {launcher.pid, *children_of(launcher.pid)} - marked(mark)
    await launcher.aclose()
    await asyncio.to_thread(wait_until_none, lambda: marked(mark) | helpers & living())
    for each in lives:
        each.result()
    del lives, each
    gc.collect()
    assert descriptors() <= before


HOST = """
import asyncio, random, sys
seed, mark = int(sys.argv[1]), sys.argv[2]
sys.path[:0] = sys.argv[3:]
from actors.runtime.children.launcher import Launcher
from test_child_chaos import live

async def main():
    chance = random.Random(seed)
    launcher = Launcher()
    print("ready", flush=True)
    for _ in range(100):
        lives = [asyncio.ensure_future(live(launcher, mark, chance)) for _ in range(5)]
        for each in lives:
            await each
            print(launcher.pid, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("seed", range(times(8)))
def test_nothing_is_left_of_a_polypod_that_is_killed_at_any_moment(mark: str, seed: int) -> None:
    chance = random.Random(seed)
    here = Path(__file__).parent
    paths = [str(each) for each in (here, here.parent, here.parents[1])]
    process = subprocess.Popen(
        [sys.executable, "-c", HOST, str(seed), mark, *paths], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        for _ in range(chance.randrange(12)):
            process.stdout.readline()
        helpers = children_of(process.pid)
        process.send_signal(chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        process.wait()
    # A helper that was begun in the last moment is found by what it is, and any child by its mark.
    wait_until_none(lambda: (helpers & living()) | marked(mark))
