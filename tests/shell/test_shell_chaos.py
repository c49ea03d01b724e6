"""Commands of every kind, run by pods that are cancelled, paused, stopped and killed at moments by chance: nothing is left."""

import asyncio
import contextlib
import gc
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from effort import times
from process_kit import DEAF, children_of, descriptors, living, marked, wait_until_none
from shell_kit import manifest, marking

from actors.llm.scripted import call, say
from actors.system import PodSystem
from protocol.errors import PolypodError
from protocol.manifest import PodManifest

PROGRAMS = (
    "echo done",
    "exit 3",
    "exec sleep 1000",
    DEAF + "echo deaf; while :; do sleep 1000; done",
    f'setsid sh -c "{DEAF} exec sleep 1000" & echo a daemon',
    "for i in 1 2 3; do (sleep 1000 & (setsid sleep 1000 &); sleep 1000) & done; echo a tree; wait",
    "f() { (f &); }; g() { (sleep 0.01; g) & }; g; exec sleep 1000",
    "exec yes",
    "head -c 3000000 /dev/urandom",
    "kill -STOP $$",
    "kill -STOP $PPID; exec sleep 1000",
    "exec >&- 2>&-; exec sleep 1000",
    "(setsid sleep 1000 &) ; kill -KILL $$",
    "no-such-program",
)
CALLS = 4


class Chance:
    """A model that runs commands by chance, some in the background, and now and then looks at one or ends one."""

    model = "chance"

    def __init__(self, chance: random.Random, mark: str) -> None:
        self._chance = chance
        self._mark = mark
        self._calls = 0

    async def stream(self, _: Any) -> AsyncIterator[Any]:
        """The next call, and now and then an end."""
        self._calls += 1
        reply = say("done") if self._calls % CALLS == 0 else self._call()
        async for block in reply.stream():
            yield block

    def _call(self) -> Any:
        command = marking(self._mark, self._chance.choice(PROGRAMS))
        arguments: dict[str, Any] = {"command": command, "timeout": self._chance.choice([0.05, 0.2])}
        if self._chance.random() < 0.4:
            arguments["background"] = True
        return call("shell", arguments)


async def live(system: PodSystem, of: PodManifest, chance: random.Random, mark: str, killed: float) -> None:
    """The life of one pod, with what others do to it."""
    pod = await system.spawn(of, client=Chance(chance, mark))
    for _ in range(3):
        running = pod.run("go")
        how = chance.choice(["wait", "cancel", "pause", "stop"])
        with contextlib.suppress(PolypodError):
            if how == "wait":
                await running
            else:
                await asyncio.wait([asyncio.ensure_future(running)], timeout=chance.random() / 3)
                await getattr(pod, how)()
                await running
        if how == "stop":
            return
        if chance.random() < killed:
            helper = pod.ref.actor.resources.template.tools._extras["launcher"]().pid  # type: ignore[attr-defined]
            if helper is not None:
                os.kill(helper, signal.SIGKILL)


@pytest.mark.parametrize("mode", ["off", "scope"])
@pytest.mark.parametrize("killed", [0, 0.2])
@pytest.mark.parametrize("seed", range(times(1)))
async def test_nothing_is_left_of_what_pods_have_run(
    mark: str, seed: int, killed: float, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    before, others = descriptors(), children_of(os.getpid())
    async with PodSystem(outputs=tmp_path / "kept", processes=6) as system:
        lives = [live(system, manifest(sandbox={"mode": mode}), chance, mark, killed) for _ in range(5)]
        await asyncio.gather(*lives)
        helpers = children_of(os.getpid()) - others - marked(mark)
    await asyncio.to_thread(
        wait_until_none, lambda: marked(mark) | helpers & living() & children_of(os.getpid())
    )
    del system, lives
    gc.collect()
    await asyncio.get_running_loop().shutdown_default_executor()  # threads remove homes
    await asyncio.sleep(0)  # and one that was made for whoever was cancelled is removed on the loop
    assert descriptors() <= before
    assert not list(temporary.iterdir())


HOST = """
import asyncio, random, sys
seed, mark = int(sys.argv[1]), sys.argv[2]
sys.path[:0] = sys.argv[3:]
from actors.system import PodSystem
from shell_kit import manifest
from test_shell_chaos import live

async def main():
    chance = random.Random(seed)
    async with PodSystem() as system:
        print("ready", flush=True)
        async def one():
            await live(system, manifest(), chance, mark, 0)
            print("one", flush=True)
        await asyncio.gather(*[one() for _ in range(8)])

asyncio.run(main())
"""


@pytest.mark.parametrize("seed", range(times(4)))
def test_nothing_is_left_of_a_program_that_is_killed_while_its_pods_run_commands(
    mark: str, seed: int
) -> None:
    chance = random.Random(seed)
    here = Path(__file__).parent
    paths = [str(each) for each in (here, here.parent, here.parents[1])]
    argv = [sys.executable, "-c", HOST, str(seed), mark, *paths]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for _ in range(chance.randrange(4)):
            process.stdout.readline()
        below = children_of(process.pid)
        process.send_signal(chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        process.wait()
    wait_until_none(lambda: (below & living()) | marked(mark))
