"""Children are started with what they were given, and with nothing else of ours."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from process_kit import children_of, environment, marked

from actors.runtime.children.confinement.confinement import Confinement
from actors.runtime.children.environment import allowed_environment
from actors.runtime.children.launcher import Launcher
from actors.runtime.children.pipes import ChildOutput
from protocol.errors import ChildNotConfined, ChildNotListening, ChildNotStarted, LineTooLong

REPORT = """
import json, os, signal, sys
print(json.dumps({
    "cwd": os.getcwd(), "env": dict(os.environ), "argv": sys.argv[1:], "stdin": sys.stdin.read(),
    "fds": sorted(map(int, os.listdir("/proc/self/fd")))[:-1], "leads": os.getsid(0) == os.getpid(),
    "status": open("/proc/self/status").read(), "tty": os.path.exists("/dev/tty") and can_open_tty(),
}))
"""
REPORT = (
    "def can_open_tty():\n"
    "    try: open('/dev/tty').close()\n"
    "    except OSError: return False\n"
    "    return True\n" + REPORT
)


async def test_a_child_has_its_folder_its_environment_three_descriptors_and_nothing_else(
    launcher: Launcher, mark: str, tmp_path: Path
) -> None:
    handle = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(handle, True)  # as what a careless library has opened
    try:
        argv = [sys.executable, "-I", "-c", REPORT, "one", "two words", "\udcff"]
        child = await launcher.start(argv, cwd=tmp_path, env={**environment(mark), "ODD": "\udcff"})
        assert child.stdout is not None
        reported = json.loads(await child.stdout.read())
    finally:
        os.close(handle)
    assert (await child.wait()).code == 0
    assert reported["cwd"] == str(tmp_path)
    assert reported["argv"] == ["one", "two words", "\udcff"]
    assert {**reported["env"], "LC_CTYPE": ""} == {**environment(mark), "ODD": "\udcff", "LC_CTYPE": ""}
    assert reported["stdin"] == ""
    assert reported["fds"] == [0, 1, 2]
    assert reported["leads"]
    assert not reported["tty"]
    status = dict(line.split(":\t", 1) for line in reported["status"].splitlines() if ":\t" in line)
    ignored = int(status["SigIgn"], 16)
    python_ignores = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1
    of_the_c_library = (
        0b11 << 31
    )  # signals 32 and 33, which no program may set; some shells leave them ignored
    assert ignored & ~(python_ignores | of_the_c_library) == 0
    assert int(status["SigBlk"], 16) == 0


async def test_the_allowed_environment_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("LC_TIME", "C")
    env = allowed_environment(["WANTED"], of={**os.environ, "WANTED": "1"}, OWN="2")
    assert "OPENAI_API_KEY" not in env
    assert (env["LC_TIME"], env["WANTED"], env["OWN"]) == ("C", "1", "2")
    assert env["PATH"] == os.environ["PATH"]


async def test_exit_codes_and_signals_are_reported(launcher: Launcher, mark: str) -> None:
    for command, code in {"exit 3": 3, "exit 0": 0, "kill -KILL $$": -9, "kill -SEGV $$": -11}.items():
        child = await launcher.start(["sh", "-c", command], cwd="/", env=environment(mark))
        assert (await child.wait()).code == code


async def test_output_and_errors_are_two_streams_or_one(launcher: Launcher, mark: str) -> None:
    argv = ["sh", "-c", "echo out; echo err >&2"]
    child = await launcher.start(argv, cwd="/", env=environment(mark))
    assert child.stdout is not None
    assert child.stderr is not None
    assert await child.stdout.read() == b"out\n"
    assert await child.stderr.read() == b"err\n"
    child = await launcher.start(argv, cwd="/", env=environment(mark), stderr="stdout")
    assert child.stdout is not None
    assert child.stderr is None
    assert [await child.stdout.readline(), await child.stdout.readline()] == [b"out\n", b"err\n"]
    assert await child.stdout.readline() == b""


async def test_a_child_may_write_to_a_file_of_ours(launcher: Launcher, mark: str, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        argv = ["sh", "-c", "echo out; echo err >&2"]
        child = await launcher.start(
            argv, cwd="/", env=environment(mark), stdout=log.fileno(), stderr="stdout"
        )
        assert child.stdout is None
        await child.wait()
    assert (tmp_path / "log").read_text() == "out\nerr\n"


async def test_much_goes_in_and_comes_out(launcher: Launcher, mark: str) -> None:
    child = await launcher.start(["cat"], cwd="/", env=environment(mark), stdin="pipe", stderr="null")
    assert child.stdin is not None
    assert child.stdout is not None
    data = os.urandom(1 << 20)

    async def feed() -> None:
        assert child.stdin is not None
        await child.stdin.write(data)
        child.stdin.close()

    feeding = asyncio.create_task(feed())
    got = b""
    while piece := await child.stdout.read():
        got += piece
    await feeding
    assert got == data
    assert (await child.wait()).code == 0
    with pytest.raises(ChildNotListening):
        await child.stdin.write(b"more")


async def test_who_does_not_listen_is_notified_of(launcher: Launcher, mark: str) -> None:
    child = await launcher.start(
        ["sh", "-c", "exec <&-; echo closed; exec sleep 1000"], cwd="/", env=environment(mark), stdin="pipe"
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert await child.stdout.readline() == b"closed\n"
    with pytest.raises(ChildNotListening):
        await child.stdin.write(b"x" * (1 << 20))
    await child.stop()


async def test_lines_are_bounded(launcher: Launcher, mark: str) -> None:
    script = "import sys; sys.stdout.write('a\\n' + 'b' * 300_000 + '\\nc\\n' + 'd' * 11 + '\\nlast')"
    child = await launcher.start([sys.executable, "-c", script], cwd="/", env=environment(mark))
    out = child.stdout
    assert out is not None
    assert await out.readline(10) == b"a\n"
    with pytest.raises(LineTooLong) as caught:
        await out.readline(10)
    assert {caught.value.begin[:1], caught.value.begin[-1:]} == {b"b"}
    assert caught.value.end.endswith(b"bbb\n")
    assert await out.readline(10) == b"c\n"
    with pytest.raises(LineTooLong) as caught:
        await out.readline(10)
    assert caught.value.begin == caught.value.end == b"d" * 11 + b"\n"
    assert await out.readline(10) == b"last"
    assert await out.readline(10) == b""


async def test_what_cannot_be_started_is_reported_in_words(
    launcher: Launcher, mark: str, tmp_path: Path
) -> None:
    (tmp_path / "plain").write_text("no program")
    for argv, cwd, words in (
        (["no-such-program"], "/", "cannot start no-such-program: No such file or directory"),
        (["true"], tmp_path / "none", "its working folder: No such file or directory"),
        ([str(tmp_path / "plain")], "/", "Permission denied"),
        (["echo", "a\0b"], "/", "contain a NUL character"),
        (["echo", "\ud800"], "/", "not valid text for the system"),
        (["echo", "x" * 200_000], "/", "Argument list too long"),
    ):
        with pytest.raises(ChildNotStarted, match=words):
            await launcher.start(argv, cwd=cwd, env=environment(mark))
    assert marked(mark) == set()


async def test_a_start_that_is_cancelled_leaves_nothing(launcher: Launcher, mark: str) -> None:
    starting = [
        asyncio.ensure_future(launcher.start(["sleep", "1000"], cwd="/", env=environment(mark)))
        for _ in range(10)
    ]
    for each in starting:
        await asyncio.sleep(0)
        each.cancel()
    await asyncio.gather(*starting, return_exceptions=True)
    await launcher.aclose()
    assert marked(mark) == set()


async def test_the_helper_begins_with_the_first_child_and_ends_with_the_launcher(mark: str) -> None:
    launcher = Launcher()
    assert launcher.pid is None
    children = await asyncio.gather(
        *(launcher.start(["sleep", "1000"], cwd="/", env=environment(mark)) for _ in range(5))
    )
    helper = launcher.pid
    assert helper is not None
    assert len(children_of(helper)) == 10  # a warden for each
    assert len(marked(mark)) == 5
    await launcher.aclose()
    assert [(await each.wait()).code for each in children] == [-signal.SIGTERM] * 5
    with pytest.raises(ProcessLookupError):
        os.kill(helper, 0)
    with pytest.raises(ChildNotStarted, match="closed"):
        await launcher.start(["true"], cwd="/", env=environment(mark))
    await launcher.aclose()


def test_any_loop_may_start_children(mark: str) -> None:
    launcher = Launcher()

    async def run() -> int:
        child = await launcher.start(["sh", "-c", "exit 7"], cwd="/", env=environment(mark))
        return (await child.wait()).code

    assert [asyncio.run(run()) for _ in range(3)] == [7] * 3
    asyncio.run(launcher.aclose())


def test_who_starts_no_child_pays_for_none() -> None:
    script = "import polypod, sys; print([name for name in sys.modules if 'runtime.children' in name])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout == b"[]\n"


async def test_a_frozen_application_is_not_started_again(
    launcher: Launcher, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(ChildNotStarted, match="frozen"):
        await launcher.start(["true"], cwd="/", env=environment(mark))
    assert launcher.pid is None


async def test_a_child_that_cannot_be_confined_is_not_started(
    launcher: Launcher, mark: str, tmp_path: Path
) -> None:
    with pytest.raises(ChildNotConfined):
        await launcher.start(
            ["true"], cwd="/", env=environment(mark), confinement=Confinement(home=str(tmp_path))
        )


async def test_a_child_that_never_stops_writing_leaves_the_loop_its_turns() -> None:
    output = ChildOutput(os.open("/dev/zero", os.O_RDONLY))
    reading = asyncio.ensure_future(output.readline())
    for _ in range(100):
        await asyncio.sleep(0)  # comes back
    assert not reading.done()
    reading.cancel()


async def test_a_reader_that_is_cancelled_loses_nothing_of_a_line() -> None:
    reader, writer = os.pipe()
    output = ChildOutput(reader)
    os.write(writer, b"one ")
    reading = asyncio.ensure_future(output.readline())
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait({reading})
    os.write(writer, b"line\n")
    os.close(writer)
    assert await output.readline() == b"one line\n"
    assert await output.readline() == b""
