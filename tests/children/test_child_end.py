"""However a child, its warden, the launcher or polypod ends: nothing of the child is left."""

import asyncio
import contextlib
import itertools
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from child_kit import in_child
from process_kit import DEAF, children_of, environment, living, marked, wait_until_none

from actors.runtime.children.child import Child, Ladder
from actors.runtime.children.launcher import Launcher, _Helper
from protocol.errors import ChildLost, ChildNotStarted

SHORT = Ladder(signal.SIGINT, request_wait=0.1, term_wait=0.1)
#: Starts a daemon that ignores signals.
DAEMON = f'setsid sh -c "{DEAF} echo daemon; while :; do sleep 1000; done" & while :; do sleep 1000; done'


async def start(launcher: Launcher, mark: str, script: str, ladder: Ladder = SHORT) -> Child:
    """A shell that runs ``script``, which has said ``ready``, or what its daemon says."""
    child = await launcher.start(["sh", "-c", script], cwd="/", env=environment(mark), ladder=ladder)
    assert child.stdout is not None
    assert await child.stdout.readline()
    return child


def of_warden(child: Child) -> int:
    status = Path(f"/proc/{child.pid}/stat").read_bytes().rpartition(b")")[2].split()
    return int(status[1])


async def test_a_graceful_request_comes_first(launcher: Launcher, mark: str) -> None:
    script = "trap 'echo asked; exit 5' INT; trap 'echo ended; exit 6' TERM; echo ready; while :; do sleep 0.01; done"
    child = await start(launcher, mark, script, Ladder(signal.SIGINT, request_wait=60))
    assert (await child.stop()).code == 5
    assert child.stdout is not None
    assert await child.stdout.read() == b"asked\n"


async def test_then_term_then_kill(launcher: Launcher, mark: str) -> None:
    script = "trap 'echo asked' INT; trap 'echo ended' TERM; echo ready; while :; do sleep 0.01; done"
    child = await start(launcher, mark, script)
    assert (await child.stop()).code == -signal.SIGKILL
    assert child.stdout is not None
    assert [await child.stdout.readline(), await child.stdout.readline()] == [b"asked\n", b"ended\n"]


async def test_a_second_stop_shortens_the_ladder(launcher: Launcher, mark: str) -> None:
    child = await start(
        launcher, mark, DEAF + "echo ready; while :; do sleep 1000; done", Ladder(None, 600, 600)
    )
    child.ask_to_stop()
    child.ask_to_stop(Ladder(request_wait=0, term_wait=0.1))
    assert (await child.wait()).code == -signal.SIGKILL


async def test_a_stopped_process_learns_of_its_end(launcher: Launcher, mark: str) -> None:
    child = await start(
        launcher, mark, "trap 'exit 4' TERM; echo ready; kill -STOP $$", Ladder(request_wait=0, term_wait=60)
    )
    assert (await child.stop()).code == 4


async def test_what_a_child_leaves_behind_ends_with_it(launcher: Launcher, mark: str) -> None:
    child = await launcher.start(
        ["sh", "-c", f'(setsid sh -c "{DEAF} echo ready; exec sleep 1000" &); exit 3'],
        cwd="/", env=environment(mark), ladder=SHORT,
    )  # fmt: skip
    assert (await child.wait()).code == 3
    assert marked(mark) == set()


async def test_a_pipe_that_others_hold_open_hangs_no_reader(launcher: Launcher, mark: str) -> None:
    """Whoever has the pipe, a reader comes to its end with the child's last process."""
    child = await start(launcher, mark, "echo ready; (setsid sleep 1000 &); echo more; sleep 1000")
    held = os.open(f"/proc/{child.pid}/fd/1", os.O_WRONLY)  # as a process that was handed it
    try:
        assert child.stdout is not None
        reading = asyncio.ensure_future(child.stdout.readline())
        assert await reading == b"more\n"
        reading = asyncio.ensure_future(child.stdout.read())
        await asyncio.sleep(0)
        await child.stop()
        assert await reading == b""
    finally:
        os.close(held)


async def test_a_process_that_forks_and_forks_ends(launcher: Launcher, mark: str) -> None:
    script = (
        "import os\nprint('ready', flush=True)\nwhile True:\n    if os.fork(): os._exit(0)\n    os.setsid()\n"
    )
    child = await launcher.start(
        [sys.executable, "-I", "-S", "-c", script], cwd="/", env=environment(mark), ladder=SHORT
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"ready\n"
    end = await child.wait()  # the first of them ends at once
    assert (end.code, end.left) == (0, ())
    assert marked(mark) == set()


async def test_what_a_killed_warden_owned_is_killed(launcher: Launcher, mark: str) -> None:
    other = await start(launcher, mark, "echo ready; exec sleep 1000")
    child = await start(launcher, mark, DEAF + DAEMON)
    os.kill(of_warden(child), signal.SIGKILL)
    with pytest.raises(ChildLost):
        await child.wait()
    assert marked(mark) == {other.pid}
    await other.stop()


async def test_children_of_a_killed_launcher_end_and_another_takes_its_place(mark: str) -> None:
    launcher = Launcher()
    children = [await start(launcher, mark, DEAF + DAEMON) for _ in range(3)]
    helper = launcher.pid
    assert helper is not None
    os.kill(helper, signal.SIGKILL)
    assert [(await each.wait()).code for each in children] == [-signal.SIGKILL] * 3
    assert marked(mark) == set()
    child = await start(launcher, mark, "echo ready; exec sleep 1000")
    assert launcher.pid != helper
    assert (await child.stop(Ladder())).code == -signal.SIGTERM
    await launcher.aclose()


async def test_signals_to_helpers_end_no_child(launcher: Launcher, mark: str) -> None:
    child = await start(launcher, mark, "echo ready; exec sleep 1000")
    assert launcher.pid is not None
    for helper in (launcher.pid, of_warden(child)):
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            os.kill(helper, number)
    assert (await (await start(launcher, mark, "echo ready; exit 2")).wait()).code == 2
    await child.stop()


async def test_a_child_that_stops_its_warden_ends_like_any(launcher: Launcher, mark: str) -> None:
    child = await start(launcher, mark, "kill -STOP $PPID; echo ready; exec sleep 1000")
    assert (await child.stop()).code == -signal.SIGINT


async def test_a_warden_that_is_stopped_when_its_launcher_is_closed_ends(mark: str) -> None:
    launcher = Launcher()
    child = await start(launcher, mark, "kill -STOP $PPID; echo ready; exec sleep 1000")
    await launcher.aclose()
    assert (await child.wait()).code == -signal.SIGINT


@pytest.mark.parametrize("closes", [False, True])
async def test_a_warden_that_is_stopped_again_and_again_is_killed(
    mark: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, closes: bool
) -> None:
    for name in ("child._GRACE", "child.KILL_WAIT", "launcher._GRACE"):
        monkeypatch.setattr(f"actors.runtime.children.{name}", 0.3)
    launcher = Launcher()
    os.mkfifo(begin := tmp_path / "begin")
    stops = f"{DEAF} echo ready; read _ < {begin}; while :; do kill -STOP $1; done"
    child = await start(launcher, mark, f"setsid sh -c '{stops}' sh $PPID & exec sleep 1000")
    begin.write_text("\n")  # not before its warden has said that it runs
    if not closes:
        with contextlib.suppress(ChildLost):
            await child.stop()
    await launcher.aclose()
    assert child.ended or closes


async def test_a_helper_that_was_stopped_goes_on_when_it_is_asked(launcher: Launcher, mark: str) -> None:
    child = await start(launcher, mark, "echo ready; exec sleep 1000")
    assert launcher.pid is not None
    os.kill(launcher.pid, signal.SIGSTOP)
    other = await start(launcher, mark, "echo ready")
    assert (await other.wait()).code == 0
    os.kill(launcher.pid, signal.SIGSTOP)
    await launcher.aclose()
    assert (await child.wait()).code == -signal.SIGINT


async def test_a_child_is_started_though_its_helper_is_stopped_again_and_again(
    launcher: Launcher, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await start(launcher, mark, "echo ready")
    assert launcher.pid is not None
    os.kill(launcher.pid, signal.SIGSTOP)
    rouse, asked = _Helper.rouse, itertools.count()
    monkeypatch.setattr("actors.runtime.children.child._PATIENCE", 0.02)
    monkeypatch.setattr(
        _Helper, "rouse", lambda helper: next(asked) < 4 or rouse(helper)
    )  # stopped again at once
    child = await start(launcher, mark, "echo ready")
    assert (await child.wait()).code == 0


async def test_a_helper_that_hangs_is_killed(mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.runtime.children.launcher._GRACE", 0.1)
    monkeypatch.setattr("actors.runtime.children.launcher._KILL_GRACE", 0.1)
    monkeypatch.setattr("actors.runtime.children.launcher._Helper.rouse", lambda _: None)
    launcher = Launcher()
    child = await start(launcher, mark, "echo ready; exec sleep 1000")
    assert launcher.pid is not None
    os.kill(launcher.pid, signal.SIGSTOP)
    await launcher.aclose()
    assert (await child.wait()).code == -signal.SIGINT


async def test_a_helper_out_of_descriptors_says_so_and_goes_on(launcher: Launcher, mark: str) -> None:
    await start(launcher, mark, "echo ready")
    assert launcher.pid is not None
    resource.prlimit(launcher.pid, resource.RLIMIT_NOFILE, (14, 14))
    asked = [start(launcher, mark, "echo ready; exec sleep 1000") for _ in range(20)]
    children = await asyncio.gather(*asked, return_exceptions=True)
    lost = [each for each in children if isinstance(each, BaseException)]
    refused = {type(each) for each in lost}
    assert refused <= {ChildLost, ChildNotStarted}, lost  # some wardens are made, and cannot go on
    assert any("the helper may be out of file descriptors" in str(each) for each in lost)
    for child in children:
        if isinstance(child, Child):
            await child.stop()
    while True:
        # The helper closes what it had for the others when their wardens end.
        with contextlib.suppress(ChildLost, ChildNotStarted):
            assert (await (await start(launcher, mark, "echo ready")).wait()).code == 0
            break


async def test_a_forked_process_has_a_launcher_of_its_own(launcher: Launcher, mark: str) -> None:
    child = await launcher.start(["cat"], cwd="/", env=environment(mark), stdin="pipe")
    assert child.stdin is not None
    assert child.stdout is not None

    async def use() -> bool:
        assert launcher.pid is None
        own = await launcher.start(["sh", "-c", "exit 4"], cwd="/", env=environment(mark))
        code = (await own.wait()).code
        await launcher.aclose()
        return code == 4

    assert await asyncio.to_thread(in_child, lambda: asyncio.run(use())) == 0
    await child.stdin.write(b"still there\n")
    assert await child.stdout.readline() == b"still there\n"
    child.stdin.close()  # which the fork does not hold open
    assert (await child.wait()).code == 0


HOST = """
import asyncio, os, sys
sys.path[:0] = sys.argv[3:]
from actors.runtime.children.launcher import Launcher
from process_kit import DEAF, environment
from test_child_end import DAEMON, start

async def main():
    launcher = Launcher()
    for script in (DEAF + DAEMON, "echo ready; exec sleep 1000", "echo ready; kill -STOP $$", sys.argv[2]):
        await start(launcher, sys.argv[1], script)
    if os.fork() == 0:  # it holds all that its parent had open
        os.write(1, f"forked {os.getpid()} {launcher.pid}\\n".encode())
        os.read(0, 1)
        os._exit(0)
    helper = launcher.pid
    os.write(1, f"ready {os.getpid()} {helper}\\n".encode())  # whole, beside the fork's
    await asyncio.sleep(1000)

asyncio.run(main())
"""


@contextlib.contextmanager
def host(mark: str, script: str = "echo ready") -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process with three children, one that runs ``script``, and a fork; and its helper's number. It is
    killed at the end, also where a test fails, for which all would wait otherwise.
    """
    here = Path(__file__).parent
    paths = [str(each) for each in (here, here.parent, here.parents[1])]
    arguments = [sys.executable, "-W", "ignore", "-c", HOST, mark, script, *paths]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            lines = sorted([process.stdout.readline(), process.stdout.readline()])
            yield process, int(lines[1].split()[2])
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_all_ends_with_polypod_though_a_fork_of_it_lives(mark: str, number: int) -> None:
    with host(mark) as (process, helper):
        helpers = {helper, *children_of(helper)}
        assert len(helpers) >= 4
        process.send_signal(number)
        process.wait()
        wait_until_none(lambda: helpers & living())
        assert marked(mark) == set()


def test_all_ends_with_polypod_though_a_child_stops_its_warden_again_and_again(mark: str) -> None:
    with host(mark, "echo ready; while :; do kill -STOP $PPID; sleep 0.001; done") as (process, helper):
        process.kill()
        process.wait()
        wait_until_none(lambda: marked(mark))
        wait_until_none(lambda: {helper} & living())


def test_all_ends_though_polypod_and_launcher_are_killed_at_once(mark: str) -> None:
    with host(mark) as (process, helper):
        helpers = children_of(helper)
        os.kill(helper, signal.SIGKILL)
        process.kill()
        process.wait()
        wait_until_none(lambda: helpers & living())
        wait_until_none(lambda: marked(mark))


@pytest.mark.parametrize("killed", ["polypod", "both"])
def test_all_ends_with_polypod_though_helper_and_wardens_are_stopped_by_then(mark: str, killed: str) -> None:
    with host(mark) as (process, helper):
        helpers = {helper, *children_of(helper)} - marked(mark)
        for each in helpers:
            with contextlib.suppress(ProcessLookupError):  # the warden of one that has ended
                os.kill(each, signal.SIGSTOP)
        process.kill()
        if killed == "both":
            os.kill(helper, signal.SIGKILL)
        process.wait()
        wait_until_none(lambda: helpers & living())
        wait_until_none(lambda: marked(mark))
