"""Removes a folder with everything below it, however deeply it is nested and whatever modes programs have
set.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str | os.PathLike[str]) -> None:
    """Remove a folder with everything below it, without following symlinks. What cannot be removed stays."""
    with contextlib.suppress(OSError):
        with _open_folder(os.fspath(path), None) as top:
            empty_folder(top)
        os.rmdir(path)  # noqa: PTH106 - the same


def empty_folder(top: int) -> None:
    """Remove everything in a folder, without following symlinks. What cannot be removed stays.

    ``shutil.rmtree`` recurses, and programs can nest folders deeper than Python's recursion and the system's
    longest path allow. So subfolders are moved up to the top before their content is looked at.
    """
    mark = os.urandom(8).hex()
    names = (f"{mark}-{number}" for number in itertools.count())
    folders = list(_remove_files(top))
    while folders:
        name = folders.pop()
        with contextlib.suppress(OSError), _open_folder(name, top) as folder:
            folders += _move_up(folder, top, names)
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=top)


def _move_up(folder: int, top: int, names: Iterator[str]) -> Iterator[str]:
    """Remove the files of a folder, and move its subfolders to the top; yields their names there."""
    for each, name in zip(_remove_files(folder), names, strict=False):
        try:
            _let_in(each, folder)
            os.rename(each, name, src_dir_fd=folder, dst_dir_fd=top)
        except OSError:
            with contextlib.suppress(OSError):  # another user's, which may be empty
                os.rmdir(each, dir_fd=folder)
        else:
            yield name


def _remove_files(folder: int) -> Iterator[str]:
    """Remove what is not a folder; yields the names of the folders."""
    for name in os.listdir(folder):
        try:
            os.unlink(name, dir_fd=folder)
        except OSError:
            yield name  # or something else that stays


@contextmanager
def _open_folder(path: str, folder: int | None) -> Iterator[int]:
    """Open a folder in which its owner may change everything. Raises OSError."""
    _let_in(path, folder)
    handle = os.open(path, _FOLDER, dir_fd=folder)
    try:
        yield handle
    finally:
        os.close(handle)


def _let_in(path: str, folder: int | None) -> None:
    """Let the owner change a folder whose mode forbids everything, as programs may have set it."""
    if not hasattr(os, "O_PATH"):
        os.chmod(path, 0o700, dir_fd=folder, follow_symlinks=False)
        return
    place = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=folder)
    try:
        os.chmod(f"/proc/self/fd/{place}", 0o700)  # noqa: PTH101 - as the rest of this
    finally:
        os.close(place)
