"""What is touched is what was checked: a symlink that comes in between is refused."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.tools.filesystem import place
from actors.tools.scope import check
from protocol.errors import ScopeRefused, ToolError
from protocol.scope import Scope


def names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


@pytest.fixture
def swapped(pwd):
    """A checked path per kind of swap, whose last or middle part has become a link since."""
    outside = pwd.parent / "outside"
    outside.mkdir()
    (outside / "file").write_text("secret")
    (pwd / "folder").mkdir()
    (pwd / "folder" / "file").write_text("mine")
    scope = Scope.writable(pwd)
    last = check(scope, pwd, "last", "write")
    middle = check(scope, pwd, "folder/file", "write")
    (pwd / "last").symlink_to(outside / "file")
    (pwd / "folder" / "file").unlink()
    (pwd / "folder").rmdir()
    (pwd / "folder").symlink_to(outside)
    return {"last": last, "middle": middle, "outside": outside}


@pytest.mark.parametrize("which", ["last", "middle"])
def test_a_link_put_in_after_the_check_is_refused_by_every_way_in(swapped, which):
    path = swapped[which]
    with pytest.raises(ScopeRefused, match="has become a symlink"), place.opened(path):
        pass
    with pytest.raises(ScopeRefused, match="has become a symlink"):
        place.replace(path, b"evil", may_make=lambda _: True)
    with pytest.raises(ScopeRefused, match="has become a symlink"):
        place.append(path, b"evil", may_make=lambda _: True)
    with pytest.raises(ScopeRefused, match="has become a symlink"):
        place.listing(path.parent if which == "middle" else path, limit=9)
    assert (swapped["outside"] / "file").read_text() == "secret"
    assert names_in(swapped["outside"]) == ["file"]


def test_no_race_of_swaps_lets_a_reader_out(pwd):
    outside = pwd.parent / "outside"
    outside.mkdir()
    (outside / "file").write_text("secret")
    real, link = pwd / "real", pwd / "link"
    real.mkdir()
    (real / "file").write_text("mine")
    link.symlink_to(outside)
    scope, stop = Scope.readable(pwd), threading.Event()

    def swap() -> None:
        names = [real, link]
        while not stop.is_set():
            names[0].rename(pwd / "folder")
            (pwd / "folder").rename(names[0])
            names.reverse()

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    try:
        for _ in range(3000):
            try:
                with place.opened(check(scope, pwd, "folder/file", "read")) as file:
                    seen.add(file.read())
            except ToolError:
                continue
    finally:
        stop.set()
        swapper.join()
    assert seen <= {b"mine"}


def test_of_threads_that_change_a_file_at_once_one_does_and_the_others_are_refused(pwd):
    barrier = threading.Barrier(8)
    done: list[int] = []

    def change(number: int) -> None:
        with place.opened(pwd / "a") as file:
            expected = place.stamp(file)
        barrier.wait()
        with contextlib.suppress(ToolError):
            place.replace(pwd / "a", b"x" * number, may_make=lambda _: False, expected=expected)
            done.append(number)

    for _ in range(20):
        (pwd / "a").write_text("one")
        done.clear()
        threads = [threading.Thread(target=change, args=(number,)) for number in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert [(pwd / "a").read_bytes()] == [b"x" * number for number in done]


def test_a_file_that_somebody_else_changed_is_not_overwritten(pwd):
    (pwd / "a").write_text("one")
    with place.opened(pwd / "a") as file:
        stamp = place.stamp(file)
    (pwd / "a").write_text("other")
    with pytest.raises(ToolError, match="changed by something else in the meantime"):
        place.replace(pwd / "a", b"two", may_make=lambda _: False, expected=stamp)
    (pwd / "a").unlink()
    with pytest.raises(ToolError, match="changed by something else"):
        place.replace(pwd / "a", b"two", may_make=lambda _: False, expected=stamp)
    assert names_in(pwd) == []


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(pwd):
    (pwd / "a").write_text("old")
    with pytest.raises(TypeError):
        place.replace(pwd / "a", "text, not bytes", may_make=lambda _: False)  # type: ignore[arg-type]
    assert names_in(pwd) == ["a"]
    assert (pwd / "a").read_text() == "old"


def test_no_file_handle_is_left_open_by_refusals(pwd):
    (pwd / "folder").mkdir()
    os.mkfifo(pwd / "pipe")
    for name in ("folder", "pipe", "no", "no/deeper"):
        with pytest.raises(ToolError), place.opened(pwd / name):
            pass
        with pytest.raises(ToolError):
            place.append(pwd / name / "x" if name == "no" else pwd / name, b"", may_make=lambda _: False)
    assert not [name for name in files_open_here() if name.startswith(str(pwd))]


def files_open_here() -> Iterator[str]:
    for descriptor in Path("/proc/self/fd").iterdir():
        # that of the listing itself, or what another thread has closed
        with contextlib.suppress(FileNotFoundError):
            yield str(descriptor.readlink())
