"""A confined program reaches no process but its own, and all of them end with it, whoever is killed."""

import contextlib
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confined_kit import TOKEN, Place, Runner
from process_kit import MARK, children_of, marked, wait_until_none

from actors.runtime.children.confinement import landlock, seccomp
from actors.runtime.children.confinement.confinement import Limits
from protocol.errors import ChildLost, ChildNotConfined


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours that is nobody's concern inside; it holds the token."""
    with subprocess.Popen(["sleep", "1000"], env={"TOKEN": TOKEN}) as process:
        yield process
        assert process.poll() is None, "it was signalled"
        process.kill()


def test_no_process_outside_is_signalled_or_read(confined: Runner, stranger: subprocess.Popen[bytes]) -> None:
    script = f"""
    for pid in {stranger.pid} {os.getpid()} {os.getppid()}; do
        kill -9 $pid; kill -STOP $pid; kill -TERM -$pid; cat /proc/$pid/environ /proc/$pid/cmdline; ls /proc/$pid/fd
    done
    pkill -9 sleep; kill -9 1; kill -STOP 1; kill -TERM 1
    cat /proc/*/environ /proc/*/cmdline; ps -ef; echo still here
    """
    reported = confined.sh(script)
    assert TOKEN not in reported.text
    assert "sleep 1000" not in reported.text.replace("pkill -9 sleep", "")
    assert "still here" in reported.text


def test_kill_of_all_reaches_its_own_alone(confined: Runner, stranger: subprocess.Popen[bytes]) -> None:
    confined.python("import os, signal; os.kill(-1, signal.SIGKILL)")
    assert confined.sh("echo again").text == "again\n"


@pytest.mark.parametrize("limits", [Limits(), Limits(cpu=60)], ids=["spawned", "forked for its limits"])
def test_it_has_no_capabilities_and_gets_no_privileges(confined: Runner, limits: Limits) -> None:
    status = dict(
        line.split(":\t", 1)
        for line in confined.sh("cat /proc/self/status", limits=limits).text.splitlines()
        if ":\t" in line
    )
    assert {status[name].strip("0") for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {""}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


def test_daemons_end_with_the_program(confined: Runner, mark: str) -> None:
    script = "(setsid sleep 1000 &); (trap '' TERM HUP; setsid sleep 1000 &); nohup sleep 1000 & echo done"
    assert confined.sh(script, env={MARK: mark}).text == "done\n"
    assert not marked(mark)


def test_a_child_is_stopped_with_all_it_started(confined: Runner, mark: str) -> None:
    async def stop() -> int:
        script = "trap '' TERM; (trap '' TERM; setsid sleep 1000 &) ; echo up; sleep 1000 & wait; sleep 1000"
        child = await confined.start(["sh", "-c", script], env={MARK: mark})
        assert child.stdout is not None
        await child.stdout.readline()
        return (await child.stop()).code

    assert confined.call(stop()) < 0
    assert not marked(mark)


@pytest.mark.parametrize("who", ["its warden", "the helper", "both"])
def test_killed_wardens_and_helpers_leave_nothing(
    confined: Runner, mark: str, who: str, place: Place
) -> None:
    async def kill() -> None:
        child = await confined.start(
            ["sh", "-c", "(setsid sleep 1000 &) ; echo up; sleep 1000"], env={MARK: mark}
        )
        assert child.stdout is not None
        await child.stdout.readline()
        helper = confined.launcher.pid
        assert helper is not None
        warden = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[1])
        assert warden in children_of(helper)
        for pid in {"its warden": [warden], "the helper": [helper], "both": [helper, warden]}[who]:
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildLost):
            await child.wait()

    confined.call(kill())
    wait_until_none(lambda: marked(mark))


def test_limits_hold(confined: Runner, place: Place) -> None:
    memory = "bytearray(400_000_000); print('had it')"
    assert "MemoryError" in confined.python(memory, limits=Limits(memory=200_000_000)).text
    assert "had it" in confined.python(memory).text
    assert confined.python("while True: pass", limits=Limits(cpu=1)).code in {
        -signal.SIGXCPU,
        -signal.SIGKILL,
    }
    confined.sh("head -c 100000 /dev/zero > big", limits=Limits(file_size=5000))
    assert (place.scope / "big").stat().st_size == 5000


def test_a_fork_bomb_ends_at_its_limit(confined: Runner) -> None:
    if os.geteuid() == 0 and tuple(map(int, os.uname().release.split(".")[:2])) < (6, 14):
        pytest.skip("root is exempt from it on this kernel")
    bound = Path("/proc/sys/kernel/pid_max").read_text()
    script = """
import os, signal
count = 0
try:
    while True:
        if os.fork() == 0: signal.pause()
        count += 1
except OSError as error: print(count, error.strerror)
"""
    count, words = confined.python(script, limits=Limits(processes=50)).text.split(" ", 1)
    assert int(count) < (350 if os.geteuid() == 0 else 50)
    assert words == "Resource temporarily unavailable\n"
    assert Path("/proc/sys/kernel/pid_max").read_text() == bound


def test_as_many_processes_as_are_allowed_can_be_made_however_many_there_were_before(
    confined: Runner,
) -> None:
    if os.geteuid() == 0 and tuple(map(int, os.uname().release.split(".")[:2])) < (6, 14):
        pytest.skip("root is exempt from it on this kernel")
    script = """
import os, signal
for _ in range(320):
    if os.fork() == 0: os._exit(0)
    os.wait()
for _ in range(40):
    if os.fork() == 0: signal.pause()
print("made")
"""
    assert confined.python(script, limits=Limits(processes=50)).text == "made\n"


def test_programs_dump_no_core(confined: Runner, place: Place) -> None:
    confined.sh("ulimit -c unlimited; sh -c 'kill -SEGV $$'")
    assert not list(place.scope.iterdir())


def test_what_a_program_types_into_a_terminal_stays_its_own(confined: Runner) -> None:
    script = """
import fcntl, os, pty
ours, theirs = pty.openpty()
try: fcntl.ioctl(theirs, 0x5412, b"x")
except OSError as error: print(error.strerror)
"""
    assert confined.python(script).text == "Operation not permitted\n"


def test_a_program_leaves_no_file_that_others_run_as_its_user(confined: Runner, place: Place) -> None:
    script = """
import os
open("made", "w").close()
tries = [lambda: os.chmod("made", 0o4755), lambda: os.chmod("made", 0o2755), lambda: os.open("new", os.O_CREAT, 0o6755)]
tries += [lambda: os.fchmod(os.open("made", os.O_RDONLY), 0o4755), lambda: os.mknod("new", 0o104755)]
tries += [lambda: os.chmod("made", 0o4755, dir_fd=os.open(".", os.O_RDONLY))]
for each in tries:
    try: each()
    except OSError as error: print(error.strerror)
os.chmod("made", 0o755)
"""
    assert confined.python(script).text == "Operation not permitted\n" * 6
    assert [path.name for path in place.scope.iterdir()] == ["made"]
    assert (place.scope / "made").stat().st_mode & 0o7777 == 0o755


# -- the rung without namespaces ---------------------------------------------------------------------


@pytest.fixture
def bare(place: Place) -> Iterator[Runner]:
    """Starts programs where no namespace can be made."""
    if not seccomp.is_known() or sys.platform != "linux":
        pytest.skip("no seccomp filter for this machine")
    runner = Runner(place, "without namespaces")
    yield runner
    runner.close()


def test_without_namespaces_it_is_refused_and_not_run(bare: Runner, place: Place) -> None:
    with pytest.raises(ChildNotConfined, match="its own namespaces: Operation not permitted"):
        bare.sh("touch ran")
    assert not (place.scope / "ran").exists()


def test_without_namespaces_nothing_below_can_be_denied(bare: Runner, place: Place) -> None:
    with pytest.raises(ChildNotConfined, match="only with namespaces"):
        bare.sh("touch ran", namespaces=False, hidden=(str(place.scope / "x"),))


@pytest.mark.skipif(landlock.version() < landlock.SCOPES, reason="Landlock is not there, or too old")
def test_landlock_alone_holds_where_nothing_below_is_denied(
    bare: Runner, place: Place, stranger: subprocess.Popen[bytes]
) -> None:
    before = place.snapshot()
    script = f"""
    cat "$SECRET" ../outside/secret.txt; ln -s "$SECRET" link; cat link; ln "$SECRET" hard; cat hard; cat /proc/1/environ
    cat /proc/{stranger.pid}/environ /proc/{stranger.pid}/cmdline; kill -9 {stranger.pid}; kill -STOP {os.getpid()}
    echo no > "$SECRET"; echo no > ../reading/readable.txt; mv ../reading moved; touch ../new /tmp/polypod-was-here
    cat ../reading/readable.txt; echo x > made; cat made; mkdir -p a/b; mv made a/b/; echo t > $TMPDIR/t; echo done
    """
    reported = bare.sh(script, namespaces=False)
    assert TOKEN not in reported.text
    assert reported.text.splitlines()[-1] == "done"
    assert "readable" in reported.text
    assert place.snapshot() == before
    assert (place.scope / "a/b/made").read_text() == "x\n"
    assert not Path("/tmp/polypod-was-here").exists()


# -- the filter --------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_call_is_found_in_the_filter_and_no_other(machine: str) -> None:
    for network in (False, True):
        code = seccomp.filter_of(network=network, local_sockets=True, machine=machine)
        of = seccomp._ARCHITECTURES[machine]
        refused = {number for number in range(600) if run_filter(code, of.audit, number) != seccomp._ALLOW}
        assert refused == {*of.refused, *seccomp._UNKNOWN, of.socket}
        assert run_filter(code, of.audit ^ 1, 0) == seccomp._KILL
        assert run_filter(code, of.audit, of.clone, 0x10000000 | 17) == seccomp._REFUSE
        assert run_filter(code, of.audit, of.clone, 0x01200011) == seccomp._ALLOW
        assert run_filter(code, of.audit, of.ioctl, 0, 0x5412) == seccomp._REFUSE
        for number, mode in of.modes:
            assert run_filter(code, of.audit, number, *[0] * mode, 0o4755) == seccomp._REFUSE
            assert run_filter(code, of.audit, number, *[0o4755] * mode, 0o1777) == seccomp._ALLOW
        for number, flags, _ in of.opens:
            for makes, verdict in ((os.O_CREAT, "_REFUSE"), (os.O_TMPFILE, "_REFUSE"), (os.O_RDWR, "_ALLOW")):
                call = (*[0] * flags, makes, 0o2755)
                assert run_filter(code, of.audit, number, *call) == getattr(seccomp, verdict)
        for family in range(48):
            is_open = network and family in {1, 2, 10, 16}
            assert (run_filter(code, of.audit, of.socket, family) == seccomp._ALLOW) == is_open
    assert run_filter(
        seccomp.filter_of(network=True, local_sockets=True, machine="x86_64"), 0xC000003E, 0x40000065
    ) == (seccomp._REFUSE)


def run_filter(code: bytes, audit: int, number: int, *arguments: int) -> int:
    """What the kernel would do by a filter."""
    steps = list(struct.iter_unpack("HBBI", code))
    data = {0: number, 4: audit} | {16 + 8 * n: value for n, value in enumerate((*arguments, *[0] * 6)[:6])}
    held, at = 0, 0
    while True:
        kind, on_true, on_false, value = steps[at]
        at += 1
        if kind == seccomp._RETURN:
            return int(value)
        if kind == seccomp._LOAD:
            held = data[value]
        elif kind == seccomp._AND:
            held &= value
        else:
            holds = {
                seccomp._EQUAL: held == value,
                seccomp._AT_LEAST: held >= value,
                seccomp._ANY_BIT: bool(held & value),
            }[kind]
            at += on_true if holds else on_false
