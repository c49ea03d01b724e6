"""Reserves names that must not come to exist while a child runs, by empty placeholders that can be mounted
over.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from actors.runtime.children.confinement import repository
from actors.runtime.children.kernel import AT_FDCWD, open_place

#: These modes identify placeholders left behind by a killed warden.
_FOLDER, _FILE = 0o500, 0o400
#: The mode of a folder in which a repository is made.
_REPOSITORY = 0o700
#: Names that are always files, with content that changes nothing for those who read them meanwhile.
_TEXTS = {b"commondir": b".", b"config": b"", b"config.worktree": b""}
_TRIES = 10
#: Somebody removed or replaced it meanwhile: it is looked at once more.
_CHANGED = {errno.ENOENT, errno.ENXIO, errno.ESTALE}
#: Nobody can create that name, not even a program. ELOOP is a symlink that was put on the way: its target is
#: not ours to touch.
_FOR_NOBODY = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR),
    *(errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP),
}
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class _Reserved(NamedTuple):
    """A placeholder, locked by all that use it; the folders ``above`` were created for it."""

    path: bytes
    handle: int
    above: tuple[bytes, ...]


class Reservations:
    """Placeholders, each removed by the last process that needs it."""

    def __init__(self) -> None:
        self._made: list[_Reserved] = []
        #: The paths at which programs may make a repository, and where that has been prepared.
        self.repositories: frozenset[bytes] = frozenset()
        self.prepared: set[bytes] = set()

    @property
    def paths(self) -> set[bytes]:
        """Where nothing existed, so that a cover hides nothing."""
        return {each.path for each in self._made}

    def reserve(self, paths: Iterable[bytes]) -> None:
        """Create an empty placeholder where nothing exists. Where this process may not, a child may not
        either.

        Raises the first OSError, once all others are reserved.
        """
        failed: OSError | None = None
        for path in paths:
            try:
                self._reserve_one(path)
            except OSError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def _reserve_one(self, path: bytes) -> None:
        for _ in range(_TRIES):
            try:
                self._reserve(path)
            except OSError as error:
                if error.errno in _CHANGED:
                    continue
                if error.errno in _FOR_NOBODY:
                    return
                raise
            return
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)

    def release(self) -> None:
        """Remove the placeholders that nobody else needs, and that nobody has replaced."""
        for each in reversed(self._made):
            with contextlib.suppress(OSError):
                fcntl.flock(each.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_repository = each.path in self.repositories
                if not is_repository or not repository.finish(each.handle):
                    _remove(each, None if is_repository else _FOLDER)
            os.close(each.handle)
        self._made.clear()

    def _reserve(self, path: bytes) -> None:
        above: list[bytes] = []
        with _folder_of(path, above) as folder:
            name = os.path.basename(path)
            if path in self.repositories:
                if _make(folder, name, _REPOSITORY) or _is_unmade(folder, name):
                    self._lock(path, folder, tuple(above))
                    self._prepare(path)
            elif _make(folder, name) or _is_placeholder(folder, name):
                self._lock(path, folder, tuple(above))

    def _prepare(self, path: bytes) -> None:
        """Prepare a locked ``.git`` for a repository, unless one was made before it could be locked."""
        handle = self._made[-1].handle
        if not repository.is_unmade(handle):
            os.close(self._made.pop().handle)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        repository.prepare(handle)
        self.prepared.add(path)

    def _lock(self, path: bytes, folder: int, above: tuple[bytes, ...]) -> None:
        name = os.path.basename(path)
        handle = os.open(name, _READ, dir_fd=folder)
        self._made.append(_Reserved(path, handle, above))
        with contextlib.suppress(OSError):  # some file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_SH)
        if not os.path.samestat(os.fstat(handle), os.lstat(name, dir_fd=folder)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


@contextlib.contextmanager
def _folder_of(path: bytes, made: list[bytes] | None = None) -> Iterator[int]:
    """Open the parent folder of a path without following symlinks, which a program may put anywhere in what
    it writes to have something created at their target. With ``made``, missing folders are created, and added
    to it.
    """
    folder = os.path.dirname(path)
    try:
        handle = open_place(AT_FDCWD, folder)
    except FileNotFoundError:
        if made is None:
            raise
        with _folder_of(folder, made) as around, contextlib.suppress(FileExistsError):
            os.mkdir(os.path.basename(folder), dir_fd=around)
        made.append(folder)
        handle = open_place(AT_FDCWD, folder)
    try:
        yield handle
    finally:
        os.close(handle)


def _make(folder: int, name: bytes, mode: int = _FOLDER) -> bool:
    """Create a placeholder. Returns whether the path did not exist."""
    text = _TEXTS.get(name)
    try:
        if text is None:
            os.mkdir(name, mode, dir_fd=folder)
        else:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            handle = os.open(name, flags, _FILE, dir_fd=folder)
            try:
                os.write(handle, text)
            except OSError:
                os.unlink(name, dir_fd=folder)
                raise
            finally:
                os.close(handle)
    except FileExistsError:
        return False
    except FileNotFoundError:
        if os.fstat(folder).st_nlink:  # it exists, in a file system where nothing can be created
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), name) from None
        raise
    return True


def _is_placeholder(folder: int, name: bytes) -> bool:
    try:
        handle = os.open(name, _READ, dir_fd=folder)
    except OSError:
        return False
    try:
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode):
            return stat.S_IMODE(found.st_mode) == _FOLDER and not os.listdir(handle)
        text = _TEXTS.get(name)
        if text is None or stat.S_IMODE(found.st_mode) != _FILE or found.st_size != len(text):
            return False
        return os.read(handle, len(text) + 1) == text
    except OSError:
        return False
    finally:
        os.close(handle)


def _is_unmade(folder: int, name: bytes) -> bool:
    """Whether it is a ``.git`` in which no repository was made yet."""
    try:
        handle = os.open(name, _READ | os.O_DIRECTORY, dir_fd=folder)
    except OSError:
        return False
    try:
        return repository.is_unmade(handle)
    finally:
        os.close(handle)


def _remove(reserved: _Reserved, mode: int | None) -> None:
    """Remove a placeholder unless somebody has replaced it or put something into it; a folder only if it has
    this ``mode``, if any. Raises OSError.
    """
    name = os.path.basename(reserved.path)
    with _folder_of(reserved.path) as folder:
        found = os.lstat(name, dir_fd=folder)
        if not os.path.samestat(os.fstat(reserved.handle), found):
            return
        if stat.S_ISDIR(found.st_mode):
            if mode in (None, stat.S_IMODE(found.st_mode)):
                os.rmdir(name, dir_fd=folder)  # fails if there is something in it
        elif _is_placeholder(folder, name):
            os.unlink(name, dir_fd=folder)
    for each in reversed(reserved.above):
        with _folder_of(each) as folder:
            os.rmdir(os.path.basename(each), dir_fd=folder)
