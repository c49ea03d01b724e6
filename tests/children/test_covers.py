"""What is covered in a program's view stays covered, and its warden alive, whatever becomes of the files."""

import contextlib
import itertools
import os
import shutil
import threading
from pathlib import Path

import pytest
from confined_kit import TOKEN, Ended, Place, Runner, ended
from effort import times

from actors.runtime.children.child import Child
from actors.runtime.children.confinement.confinement import Limits
from actors.runtime.children.confinement.reserve import Reservations

#: Makes all processes that it may.
BOMB = """
import os, signal
try:
    while True:
        if os.fork() == 0: signal.pause()
except OSError: pass
"""
#: Writes a line once what it is to cover has been: it cannot be read any more.
UNTIL_COVERED = """
print("up", flush=True); input()
def is_open(path):
    try: return "token" in open(path).read()
    except OSError: return False
while is_open("b/denied"): pass
print("covered")
"""


async def up(child: Child) -> None:
    """It has begun to run."""
    assert child.stdout is not None
    assert await child.stdout.readline() == b"up\n"


async def go_on(child: Child) -> Ended:
    assert child.stdin is not None
    await child.stdin.write(b"go\n")
    return await ended(child)


def put_in_place_of(folder: Path, place: Place, what: str) -> None:
    """Its name may be taken before we have it: to reserve what was in there."""
    for number in itertools.count():
        folder.rename(folder.with_name(f"moved-{number}"))
        with contextlib.suppress(FileExistsError):
            if what == "a symlink":
                folder.symlink_to(place.outside)
            else:
                folder.touch(exist_ok=False)
            return


def test_a_program_ends_well_at_any_moment_of_a_replacement(confined: Runner, place: Place) -> None:
    names = ("commondir", "folder")
    covered = tuple(str(place.scope / name) for name in names)

    async def replace(round_: int) -> int:
        child = await confined.start(["cat"], stdin="pipe", denied=covered)
        assert child.stdin is not None
        for step in range(4):
            if step == round_ % 4:
                child.stdin.close()
            (place.outside / "new").write_text(TOKEN)
            (place.outside / "new").replace(place.scope / "commondir")
            shutil.rmtree(place.scope / "folder", ignore_errors=True)
            with contextlib.suppress(FileExistsError):  # by a placeholder, which may be gone the next moment
                (place.scope / "folder").mkdir()
        return (await ended(child)).code

    for each in range(times(40)):
        assert confined.call(replace(each)) == 0
        (place.scope / "commondir").unlink(missing_ok=True)
        shutil.rmtree(place.scope / "folder", ignore_errors=True)
    assert not list(place.scope.iterdir())


def test_a_program_begins_while_what_is_covered_is_replaced_again_and_again(
    confined: Runner, place: Place
) -> None:
    over = threading.Event()

    def replace() -> None:
        for name in ("denied", "kept"):
            (place.outside / "new").write_text(TOKEN)
            (place.outside / "new").replace(place.scope / name)

    def replace_until_over() -> None:
        while not over.is_set():
            replace()

    replace()  # what is not there yet is reserved by a folder, which no file replaces
    replacing = threading.Thread(target=replace_until_over)
    replacing.start()
    try:
        for _ in range(times(20)):
            changes = {"denied": (f"{place.scope}/denied",), "read_only": (f"{place.scope}/kept",)}
            assert confined.sh("echo ran", **changes).text == "ran\n"
    finally:
        over.set()
        replacing.join()


@pytest.mark.parametrize("how", ["a symlink", "a file"])
def test_one_folder_that_became_something_else_keeps_no_other_from_being_covered(
    confined: Runner, place: Place, how: str
) -> None:
    for name in ("a", "b"):
        (place.scope / name).mkdir()
        (place.scope / name / "denied").write_text("old")
    (place.outside / "new").write_text(TOKEN)
    interpreter = [os.path.realpath("/proc/self/exe"), "-I", "-c", UNTIL_COVERED]

    async def replace() -> Ended:
        denied = (f"{place.scope}/a/denied", f"{place.scope}/b/denied")
        child = await confined.start(interpreter, stdin="pipe", denied=denied)
        await up(child)
        put_in_place_of(place.scope / "a", place, how)
        (place.outside / "new").replace(place.scope / "b/denied")
        return await go_on(child)

    assert "covered" in confined.call(replace()).text
    assert (place.outside / "secret.txt").read_text() == TOKEN


def test_what_is_replaced_is_covered_where_a_program_has_all_processes_that_it_may(
    confined: Runner, place: Place
) -> None:
    if os.geteuid() == 0 and confined.rung != "as we are":
        pytest.skip("root without privileges bounds the namespace, with who covers in it")
    (place.scope / "b").mkdir()
    (place.scope / "b/denied").write_text("old")
    (place.outside / "new").write_text(TOKEN)
    interpreter = [os.path.realpath("/proc/self/exe"), "-I", "-c", BOMB + UNTIL_COVERED]

    async def replace() -> Ended:
        limits = Limits(processes=50)
        denied = (f"{place.scope}/b/denied",)
        child = await confined.start(interpreter, stdin="pipe", denied=denied, limits=limits)
        await up(child)
        (place.outside / "new").replace(place.scope / "b/denied")
        return await go_on(child)

    assert "covered" in confined.call(replace()).text


def test_a_name_that_nobody_can_make_keeps_none_from_being_reserved(tmp_path: Path) -> None:
    reservations = Reservations()
    folder = os.fsencode(os.path.realpath(tmp_path))
    (tmp_path / "file").touch()
    reservations.reserve(
        [folder + b"/" + b"x" * 300, folder + b"/file/below", b"/proc/none", folder + b"/later"]
    )
    assert (tmp_path / "later").is_dir()
    reservations.release()
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
