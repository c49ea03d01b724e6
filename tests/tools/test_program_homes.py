"""Homes of programs end with who made them, however that ends, and nobody else's files with them."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from actors.tools import program_homes
from actors.tools.program_homes import PREFIX, ProgramHome

HOLD = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from actors.tools.program_homes import ProgramHome
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
