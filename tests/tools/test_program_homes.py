"""Homes of programs end with who made them, however that ends, and nobody else's files with them."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from process_kit import descriptors
from store_kit import small_disk

from actors.tools.confinement import program_homes, sandbox
from actors.tools.confinement.program_homes import PREFIX, ProgramHome, close_home, make_home
from polypod import ChildNotConfined, PodManifest, PodSystem, ScriptedClient, ToolResulted, call, say

HOLD = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from actors.tools.confinement.program_homes import ProgramHome
home = ProgramHome()
print(home.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, at which no look was taken yet."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(program_homes, "_looked", -program_homes._AGAIN)
    return tmp_path


def hold(folder: Path) -> "subprocess.Popen[str]":
    """Another process that has a home."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def test_a_home_with_folders_deeper_than_recursion_may_go_is_removed_and_breaks_no_other(
    folder: Path,
) -> None:
    with hold(folder) as killed:
        assert killed.stdout is not None
        deep = killed.stdout.readline().strip()
        nest = "import os\nfor _ in range(1500): os.mkdir('d'); os.chdir('d')"
        subprocess.run([sys.executable, "-c", nest], cwd=deep, check=True)
        killed.send_signal(signal.SIGKILL)
    home = ProgramHome()
    subprocess.run([sys.executable, "-c", nest], cwd=home.path, check=True)
    home.close()
    assert list(folder.iterdir()) == []


def test_the_home_of_a_killed_program_goes_with_the_next_that_is_made(folder: Path) -> None:
    with hold(folder) as killed, hold(folder) as living:
        assert killed.stdout is not None
        assert living.stdout is not None
        left, kept = (Path(each.stdout.readline().strip()) for each in (killed, living) if each.stdout)
        (left / "closed/below").mkdir(parents=True)
        (left / "closed/below/file").touch()
        (left / "closed").chmod(0o500)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        home = ProgramHome()
        assert {each.name for each in folder.iterdir()} == {Path(home.path).name, kept.name}
        home.close()
    assert not Path(home.path).exists()


def test_what_is_no_home_of_this_user_stays(folder: Path, tmp_path: Path) -> None:
    aside = tmp_path / "aside"
    aside.mkdir()
    (aside / "file").touch()
    (folder / f"{PREFIX}link").symlink_to(aside)
    (folder / f"{PREFIX}file").touch()
    (folder / "polypod-0").mkdir()
    before = {each.name for each in folder.iterdir()}
    if os.geteuid() == 0:
        (folder / f"{PREFIX}others").mkdir()
        os.chown(folder / f"{PREFIX}others", 12345, 12345)
        before.add(f"{PREFIX}others")
    home = ProgramHome()
    (Path(home.path) / "link").symlink_to(aside)
    home.close()
    assert {each.name for each in folder.iterdir()} == before
    assert (aside / "file").exists()


def test_a_full_disk_is_said_with_what_to_do_and_leaves_nothing_half_made(folder: Path) -> None:
    before = descriptors()
    with small_disk(folder / "disk", "8k"):
        full = folder / "disk"
        (full / "first").write_bytes(b"x" * 4096)
        tempfile.tempdir = str(full)
        with pytest.raises(ChildNotConfined, match=r"no home .* No space left") as raised:
            ProgramHome(b"x" * 10_000)
        assert raised.value.hint is not None
        assert str(full) in raised.value.hint
        assert [each.name for each in full.iterdir()] == ["first"]
    assert descriptors() == before


async def test_without_a_home_a_command_that_has_to_be_confined_is_not_run_and_the_run_goes_on(
    folder: Path,
) -> None:
    tempfile.tempdir = str(folder / "gone")
    client = ScriptedClient([call("shell", {"command": "true"}, id="c"), say("so be it")])
    manifest = PodManifest.of(name="p", tools={"builtin": ["shell"]}, sandbox={"mode": "require"})
    async with PodSystem() as system:
        pod = await system.spawn(manifest, client=client)
        with pod.subscribe(kinds=[ToolResulted]) as results:
            assert (await pod.run("try")).text == "so be it"
            [result] = results.drain()
    assert "the command was not run" in result.item.text
    assert "TMPDIR" in result.item.text


def test_folders_that_a_program_has_closed_go_with_its_home(folder: Path) -> None:
    home = ProgramHome()
    deep = Path(home.path) / "a/b/c"
    deep.mkdir(parents=True)
    (deep / "file").touch()
    for each in (deep, deep.parent, deep.parent.parent):
        each.chmod(0)
    home.close()
    assert not list(folder.iterdir())


def test_a_home_that_nobody_holds_is_looked_for_now_and_then(folder: Path) -> None:
    ProgramHome().close()
    left = folder / f"{PREFIX}left"
    left.mkdir()
    ProgramHome().close()
    assert left.exists()


async def cancel_while_it_is_made(ask: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Cancel a command whose home is being made: by a thread that is held up meanwhile."""
    loop, go_on = asyncio.get_running_loop(), threading.Event()
    loop.set_default_executor(ThreadPoolExecutor(1))
    holding = loop.run_in_executor(None, go_on.wait)
    command = asyncio.ensure_future(ask())
    await asyncio.sleep(0)
    command.cancel()
    with pytest.raises(asyncio.CancelledError):
        await command
    go_on.set()
    await holding
    await asyncio.to_thread(lambda: None)  # behind the making


async def test_a_command_that_is_cancelled_while_its_home_is_made_leaves_nothing(folder: Path) -> None:
    await asyncio.to_thread(lambda: None)
    before = descriptors()
    await cancel_while_it_is_made(make_home)
    assert not list(folder.iterdir())
    assert descriptors() == before


async def test_a_home_whose_command_was_cancelled_goes_to_who_keeps_it_for_the_next(folder: Path) -> None:
    kept: list[ProgramHome] = []
    await cancel_while_it_is_made(lambda: make_home(left=kept.append))
    [home] = kept
    assert [Path(home.path)] == list(folder.iterdir())
    home.close()


async def test_a_home_is_removed_also_where_its_command_is_cancelled_while_all_threads_are_busy(
    folder: Path,
) -> None:
    home = await make_home()
    await cancel_while_it_is_made(lambda: close_home(home))
    assert not list(folder.iterdir())


def test_homes_of_others_that_cannot_be_looked_for_are_not_left_uncovered(folder: Path):
    home = str(folder / "own")
    (folder / f"{PREFIX}other").mkdir()
    assert sandbox._other_homes([str(folder)], home) == [f"{folder}/{PREFIX}other"]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            sandbox._other_homes([str(folder)], home)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
