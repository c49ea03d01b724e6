"""A warden whose confined child has ended owns the next one, unless anything is left of what it was."""

import asyncio
import contextlib
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confined_kit import Place, Runner
from process_kit import children_of, parent_of, wait_until_none

from actors.runtime.children.child import Ladder
from actors.runtime.children.confinement.confinement import Limits
from protocol.errors import ChildNotConfined

if sys.platform != "linux":
    pytest.skip("wardens confine on Linux", allow_module_level=True)

#: A program that ends, and leaves a process that is its own parent's child (CLONE_PARENT).
LEAVES_A_SIBLING = """
import ctypes, os, signal, sys
if ctypes.CDLL(None).syscall(int(sys.argv[1]), 0x8000 | signal.SIGCHLD, 0, 0, 0, 0) == 0:
    os.closerange(0, 3)
    os.setsid()
    signal.pause()
os._exit(0)
"""
CLONE = {"x86_64": 56, "aarch64": 220}


@pytest.fixture(params=["as we are", "without privileges"])
def runner(request: pytest.FixtureRequest, place: Place) -> Iterator[Runner]:
    """One that has a warden to spare."""
    runner = Runner(place, request.param)
    try:
        try:
            runner.run([])
        except ChildNotConfined as error:
            pytest.skip(str(error))
        yield runner
    finally:
        runner.close()


def wardens(runner: Runner) -> set[int]:
    pid = runner.launcher.pid
    return set() if pid is None else {each for each in children_of(pid) if parent_of(each) == pid}


def opened(pid: int) -> list[str]:
    return sorted(str(each.readlink()).split(":")[0] for each in Path(f"/proc/{pid}/fd").iterdir())


def test_a_warden_owns_one_confined_child_after_another_and_keeps_nothing_of_any(
    runner: Runner, place: Place
) -> None:
    [warden] = wardens(runner)
    before, namespace = opened(warden), (Path(f"/proc/{warden}/ns/pid_for_children")).readlink()
    covered = place.scope / "covered"
    covered.write_text("old")
    for number in range(5):
        shown = runner.sh(
            f"echo {number} /proc/$$ /proc/[0-9]*; cat covered",
            denied=(str(covered),),
            read_only=("/nowhere/at/all",),
        )
        shown_number, own, first, *others = shown.text.partition("\n")[0].split()
        assert (int(shown_number), first, others) == (number, "/proc/1", [own])  # there is no other
        assert shown.code != 0
        assert runner.sh("exit 7").code == 7
        assert wardens(runner) == {warden}
    assert opened(warden) == before
    assert (Path(f"/proc/{warden}/ns/pid_for_children")).readlink() == namespace
    assert [each.name for each in place.scope.iterdir()] == ["covered"]


def test_a_program_sees_no_descriptor_and_no_variable_of_the_one_before(runner: Runner) -> None:
    runner.sh("true", env={"OF_THE_FIRST": "its-own-secret"})
    shown = runner.sh("env; ls /proc/self/fd; cat /proc/1/environ /proc/1/maps")
    assert "OF_THE_FIRST" not in shown.text
    assert "its-own-secret" not in shown.text


def test_a_warden_that_was_asked_to_end_its_child_owns_no_other(runner: Runner) -> None:
    before = wardens(runner)
    child = runner.call(runner.start(["sleep", "1000"]))
    runner.call(child.stop())
    assert runner.sh("echo here").text == "here\n"
    wait_until_none(lambda: before & wardens(runner))


def test_a_warden_whose_child_left_others_owns_no_other(runner: Runner) -> None:
    before = wardens(runner)
    assert runner.sh("sleep 1000 >&- 2>&- & echo here").text == "here\n"
    assert runner.sh("echo here").text == "here\n"
    wait_until_none(lambda: before & wardens(runner))


def test_a_child_that_a_program_gives_its_own_parent_ends_with_it_and_sees_no_later_program(
    runner: Runner,
) -> None:
    before = wardens(runner)
    interpreter = os.path.realpath(sys.executable)
    assert runner.run([interpreter, "-I", "-c", LEAVES_A_SIBLING, str(CLONE[platform.machine()])]).code == 0
    assert runner.sh("echo /proc/[0-9]*").text.split() == ["/proc/1", "/proc/2"]
    wait_until_none(lambda: before & wardens(runner))


def test_the_parent_that_a_program_may_ask_to_end_with_is_there_as_long_as_it_is(runner: Runner) -> None:
    async def count_threads() -> int:
        script = "import sys; print('up', flush=True); sys.stdin.read()"
        child = await runner.start([os.path.realpath(sys.executable), "-I", "-c", script], stdin="pipe")
        assert child.stdout is not None
        await child.stdout.read(3)
        [warden] = wardens(runner)
        found = len(list(Path(f"/proc/{warden}/task").iterdir()))
        await child.stop()
        return found

    [warden] = wardens(runner)
    idle = len(list(Path(f"/proc/{warden}/task").iterdir()))
    assert runner.call(count_threads()) == idle + 1


def test_a_start_that_is_cancelled_ends_the_program_at_once(runner: Runner) -> None:
    async def cancel() -> None:
        starting = asyncio.ensure_future(runner.start(["sleep", "1000"]))
        await asyncio.sleep(0)  # by now its warden is asked
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting

    began = time.monotonic()
    runner.call(cancel())
    assert time.monotonic() - began < Ladder().term_wait


def test_a_spare_warden_that_is_killed_is_missed_by_nobody(runner: Runner) -> None:
    for _ in range(3):
        [warden] = wardens(runner)
        os.kill(warden, signal.SIGKILL)
        assert runner.sh("echo here").text == "here\n"


def test_a_spare_warden_whose_first_process_is_killed_is_missed_by_nobody(runner: Runner) -> None:
    for _ in range(3):
        [warden] = wardens(runner)
        [first] = children_of(warden)
        os.kill(first, signal.SIGKILL)
        wait_until_none(lambda of=warden: {of} & wardens(runner))
        assert runner.sh("echo here").text == "here\n"


def test_the_first_process_of_a_spare_warden_keeps_no_file_system_from_being_unmounted(
    runner: Runner,
) -> None:
    runner.sh("true")
    [warden] = wardens(runner)
    [first] = children_of(warden)
    [mounted] = Path(f"/proc/{first}/mountinfo").read_text().splitlines()
    assert " - proc " in mounted


def test_a_program_has_the_network_that_it_was_given_and_not_that_of_the_one_before(runner: Runner) -> None:
    def networks() -> list[str]:
        return [
            runner.sh("readlink /proc/self/ns/net", network=network).text.strip()
            for network in (False, True, False, True)
        ]

    none, ours, again, ours_again = networks()
    assert ours == ours_again == str(Path("/proc/self/ns/net").readlink())
    assert none != ours
    assert again not in {ours, ours_again}


def test_a_program_has_no_bound_of_the_one_before(runner: Runner) -> None:
    try:
        bounded = runner.sh("cat /proc/sys/kernel/pid_max", limits=Limits(processes=400))
    except ChildNotConfined as error:
        pytest.skip(str(error))
    free = runner.sh("cat /proc/sys/kernel/pid_max")
    assert bounded.code == free.code == 0
    assert int(free.text) > 400


def test_a_program_that_bounds_its_first_process_keeps_no_later_one_from_starting(runner: Runner) -> None:
    bounded = runner.python("import resource; resource.prlimit(1, resource.RLIMIT_NOFILE, (0, 0))")
    assert bounded.code == 0
    for _ in range(3):
        assert runner.sh("echo here").text == "here\n"


def test_a_spare_warden_that_is_stopped_goes_on_when_it_is_needed(runner: Runner) -> None:
    [warden] = wardens(runner)
    os.kill(warden, signal.SIGSTOP)
    assert runner.sh("echo here").text == "here\n"


def test_what_is_to_be_held_is_held_by_the_wardens_of_all_children_after_it(
    runner: Runner, place: Place
) -> None:
    held = os.open(place.outside, os.O_RDONLY)
    try:
        runner.launcher.hold(held)
        child = runner.call(runner.start(["cat"], stdin="pipe"))
        owners = {each for each in wardens(runner) if str(place.outside) in opened(each)}
        assert len(owners) == 1
        assert child.stdin is not None
        child.stdin.close()
        runner.call(child.wait())
        assert wardens(runner) >= owners  # and owns the next
    finally:
        os.close(held)


def test_spare_wardens_end_with_their_launcher(place: Place) -> None:
    runner = Runner(place, "as we are")
    try:
        runner.sh("true")
        spare = wardens(runner)
    except ChildNotConfined as error:
        pytest.skip(str(error))
    finally:
        runner.close()
    wait_until_none(lambda: spare & children_of(os.getpid()))
