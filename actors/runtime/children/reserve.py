"""Reserves names: what is not there, and is not to come to be there while a child runs, is put there empty,
so that it can be mounted over.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterable
from typing import NamedTuple

#: By its mode a folder is known that was left behind when a warden was killed.
_FOLDER, _FILE = 0o500, 0o400
#: Names that are files where they are anything, with what changes nothing for who reads them meanwhile.
_TEXTS = {b"commondir": b".", b"config": b""}
_TRIES = 10


class _Reserved(NamedTuple):
    """A placeholder, locked by all that use it; those of ``above`` were made for it."""

    path: bytes
    handle: int
    above: tuple[bytes, ...]


class Reservations:
    """Placeholders that are taken away again, each by the last that needs it."""

    def __init__(self) -> None:
        self._made: list[_Reserved] = []

    @property
    def paths(self) -> set[bytes]:
        """Where there was nothing: what is there has nothing in it to hide."""
        return {each.path for each in self._made}

    def reserve(self, paths: Iterable[bytes]) -> None:
        """Put something where there is nothing. Where this process may not, a child may not either."""
        for path in paths:
            for _ in range(_TRIES):
                with contextlib.suppress(FileNotFoundError):  # another took away what it had made
                    self._reserve(path)
                    break

    def release(self) -> None:
        """Take away what nobody else needs, and nobody has put something else in the place of."""
        for each in reversed(self._made):
            with contextlib.suppress(OSError):
                fcntl.flock(each.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(each.handle), os.lstat(each.path)) and _is_placeholder(
                    each.path
                ):
                    _remove(each.path)
                    for folder in each.above:
                        os.rmdir(folder)
            os.close(each.handle)
        self._made.clear()

    def _reserve(self, path: bytes) -> None:
        above: list[bytes] = []
        with contextlib.suppress(PermissionError, NotADirectoryError):
            folder = os.path.dirname(path)
            while not os.path.lexists(folder):
                above.append(folder)
                folder = os.path.dirname(folder)
            for each in reversed(above):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(each)
            if _make(path) or _is_placeholder(path):
                self._lock(path, tuple(above))

    def _lock(self, path: bytes, above: tuple[bytes, ...]) -> None:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        self._made.append(_Reserved(path, handle, above))
        fcntl.flock(handle, fcntl.LOCK_SH)
        if not os.path.samestat(os.fstat(handle), os.lstat(path)):
            raise FileNotFoundError(path)


def _make(path: bytes) -> bool:
    """Whether it was not there."""
    text = _TEXTS.get(os.path.basename(path))
    try:
        if text is None:
            os.mkdir(path, _FOLDER)
        else:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, _FILE)
            os.write(handle, text)
            os.close(handle)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        return False
    return True


def _is_placeholder(path: bytes) -> bool:
    try:
        found = os.lstat(path)
        if stat.S_ISDIR(found.st_mode):
            return stat.S_IMODE(found.st_mode) == _FOLDER and not os.listdir(path)
        text = _TEXTS.get(os.path.basename(path))
        if text is None or stat.S_IMODE(found.st_mode) != _FILE or found.st_size != len(text):
            return False
        with open(path, "rb") as file:
            return file.read() == text
    except OSError:
        return False


def _remove(path: bytes) -> None:
    if stat.S_ISDIR(os.lstat(path).st_mode):
        os.rmdir(path)
    else:
        os.unlink(path)
