"""Opens, lists and replaces files at a checked path, without following a symlink on the way.

A path that passed the scope check holds no symlink. Someone may put one there before it is opened, so
every step from the root down is opened with O_NOFOLLOW, relative to the step before: what is touched
is what was checked, or nothing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

from protocol.errors import ScopeRefused, ToolError

# To pass through a directory needs no permission to list it, where the system knows the difference.
_STEP = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LISTED = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a pipe would wait for its other end.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_NO_FILE = "it is not a regular file but a device, a pipe or a socket"
_WORDS = {
    errno.ENOENT: "there is no such file or directory",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
    errno.EISDIR: "it is a directory",
    errno.ENOTDIR: "it, or a parent of it, is not a directory",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENXIO: _NO_FILE,
    errno.EIO: "input/output error",
}

#: Bytes of a file that is copied since it has other names.
_COPIED_MOST = 64 << 20
#: Held from the look at what is replaced until it is: of two threads that change a file one is refused.
_REPLACING = threading.Lock()
#: Control characters, line ends, and what turns the direction of writing.
_UNSHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class Stamp(NamedTuple):
    """What distinguishes one content of a file from another without reading it."""

    inode: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """The stamp of a file's status."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


class Entry(NamedTuple):
    """A name in a directory; ``size`` in bytes, of regular files alone, where it was asked for."""

    name: str
    is_dir: bool
    is_link: bool
    size: int | None


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The regular file at ``path``, for reading. Raises ToolError in plain words, and ScopeRefused
    where a symlink has come into the path.
    """
    # All of it within, since reading may fail too: a broken disk, files of the kernel.
    with _translated(path), _directory(path.parent) as parent, _file(path, parent) as file:
        yield file


def _file(path: Path, parent: int) -> BinaryIO:
    handle = os.open(path.name or ".", _READ, dir_fd=parent)
    return os.fdopen(_regular(handle, path), "rb")


class Opener:
    """Opens files as ``opened`` does, one directory after the other: the last one is held open, since the way
    to it takes several times what opening a file in it does. A context manager.
    """

    def __init__(self) -> None:
        self._held = contextlib.ExitStack()
        self._parent: Path | None = None
        self._handle = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    @contextlib.contextmanager
    def opened(self, path: Path) -> Iterator[BinaryIO]:
        """As the function of that name."""
        with _translated(path):
            if path.parent != self._parent:
                self._parent = None
                self._held.close()
                self._handle = self._held.enter_context(_directory(path.parent))
                self._parent = path.parent
            with _file(path, self._handle) as file:
                yield file


def listing(path: Path, *, limit: int, sizes: bool = True) -> list[Entry]:
    """At most ``limit`` names in the directory at ``path``, in no order; raises as ``opened`` does."""
    with _translated(path), _directory(path, flags=_LISTED) as handle, os.scandir(handle) as found:
        return [_entry(each, sizes=sizes) for each, _ in zip(found, range(limit), strict=False)]


def shown(name: str) -> str:
    """A name as a model sees it: one that would break or disguise the line it stands on as JSON text,
    so that it can be given back as it stands.
    """
    return json.dumps(name) if _UNSHOWN.search(name) else name


def stamp(file: BinaryIO) -> Stamp:
    """The stamp of an opened file, to be given to ``replace``."""
    return Stamp.of(os.fstat(file.fileno()))


def replace(
    path: Path, data: bytes, *, may_make: Callable[[Path], bool], expected: Stamp | None = None
) -> int | None:
    """Put a file with ``data`` at ``path`` in one step: a reader sees the old or the new, whole.

    Keeps the mode of a file that is there; makes missing parents where ``may_make(parent)``. With
    ``expected``, raises ToolError where the file is not that one any more. Returns the old size, or
    None where there was no file. The data outlives this process, not a power failure.
    """
    with _translated(path), _directory(path.parent, may_make=may_make) as parent:
        old = _status(path.name, parent)
        if old is not None:
            _require_regular(old, path)
            if not os.access(path.name, os.W_OK, dir_fd=parent):  # a rename would not ask
                raise PermissionError(errno.EACCES, "read-only")
        temporary = f".polypod-{secrets.token_hex(6)}.tmp"
        handle = os.open(temporary, _NEW, 0o666 if old is None else 0o600, dir_fd=parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                if old is not None:
                    _take_after(file.fileno(), old)
            _put(temporary, path, parent, expected)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=parent)
            raise
        return None if old is None else old.st_size


def _put(temporary: str, path: Path, parent: int, expected: Stamp | None) -> None:
    with _REPLACING:
        found = None if expected is None else _status(path.name, parent)
        if expected is not None and (found is None or Stamp.of(found) != expected):
            raise ToolError(f"{path} was changed by something else in the meantime", hint="read it again")
        os.replace(temporary, path.name, src_dir_fd=parent, dst_dir_fd=parent)


def append(path: Path, data: bytes, *, may_make: Callable[[Path], bool]) -> None:
    """Add ``data`` at the end of the file at ``path``, which is made where it is missing.

    A file with other names (hard links) is replaced by a copy first: they may be where nobody may write.
    """
    with _translated(path), _directory(path.parent, may_make=may_make) as parent:
        handle = os.open(path.name, _APPEND, 0o666, dir_fd=parent)
        with os.fdopen(_regular(handle, path), "ab") as file:
            if os.fstat(handle).st_nlink == 1:
                file.write(data)
                return
    with opened(path) as file:
        expected = stamp(file)
        if expected.size > _COPIED_MOST:
            raise ToolError(
                f"{path} has other names (hard links), and its {expected.size:,} bytes are too many to copy",
                hint="copy the file, and append to the copy",
            )
        before = file.read(_COPIED_MOST + 1)  # one that has grown meanwhile is not replaced
    replace(path, before + data, may_make=may_make, expected=expected)


@contextlib.contextmanager
def _directory(
    path: Path, *, flags: int = _STEP, may_make: Callable[[Path], bool] | None = None
) -> Iterator[int]:
    """A handle of the directory at ``path``, reached step by step from the root."""
    handle = os.open(path.anchor, _STEP if path.parent != path else flags)
    try:
        for place in [*reversed(path.parents), path][1:]:
            step = _step(place, handle, flags if place == path else _STEP, may_make)
            os.close(handle)
            handle = step
        yield handle
    finally:
        os.close(handle)


def _step(place: Path, parent: int, flags: int, may_make: Callable[[Path], bool] | None) -> int:
    try:
        return os.open(place.name, flags, dir_fd=parent)
    except FileNotFoundError as error:
        if may_make is None:
            raise
        if not may_make(place):
            raise ScopeRefused(
                f"there is no directory {place}, and the scope does not allow creating it"
            ) from error
    with contextlib.suppress(FileExistsError):
        os.mkdir(place.name, dir_fd=parent)
    return os.open(place.name, flags, dir_fd=parent)


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """No OSError leaves: the model gets in words what is wrong with ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ELOOP or (error.errno == errno.ENOTDIR and _holds_link(path)):
            raise ScopeRefused(
                f"the path {path} has become a symlink, or leads through one, since it was checked"
            ) from error
        why = _WORDS.get(error.errno or 0, error.strerror or str(error))
        raise ToolError(f"{path}: {why}") from error


def _holds_link(path: Path) -> bool:
    """Whether some part of ``path`` is a symlink; Linux says ENOTDIR of one that is refused."""
    return any(place.is_symlink() for place in (path, *path.parents))


def _status(name: str, parent: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _regular(handle: int, path: Path) -> int:
    """``handle`` itself where it is of a regular file; else it is closed."""
    try:
        _require_regular(os.fstat(handle), path)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _require_regular(status: os.stat_result, path: Path) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, "a symlink")
    if stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EISDIR, "a directory")
    if not stat.S_ISREG(status.st_mode):
        raise ToolError(f"{path}: {_NO_FILE}")


def _take_after(handle: int, old: os.stat_result) -> None:
    """Give a new file the mode of the old one, and its owner where that is ours to give.

    As after any write to a file, it no longer runs with its owner's rights (setuid).
    """
    now = os.fstat(handle)
    if (now.st_uid, now.st_gid) != (old.st_uid, old.st_gid):
        with contextlib.suppress(PermissionError):
            os.fchown(handle, old.st_uid, old.st_gid)
    os.fchmod(handle, stat.S_IMODE(old.st_mode) & 0o1777)


def _entry(found: os.DirEntry[str], *, sizes: bool) -> Entry:
    is_dir, is_link = found.is_dir(follow_symlinks=False), found.is_symlink()
    size = None
    if sizes and not is_dir and not is_link:
        with contextlib.suppress(FileNotFoundError):  # it went while we looked
            status = found.stat(follow_symlinks=False)
            size = status.st_size if stat.S_ISREG(status.st_mode) else None
    return Entry(found.name, is_dir, is_link, size)
