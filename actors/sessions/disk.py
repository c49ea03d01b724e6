"""What stores on disk share: private, durable files and folders, locks, and typed errors for the system's
errors.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from protocol.errors import StoreError

_NO_FOLDER = "a file is where a folder is needed: move it away, or choose another path"
_FREE_SPACE = "free some space; later writes will then succeed"
_FREE_QUOTA = "free some of your disk quota; later writes will then succeed"
_FREE_FILES = "delete some files; later writes will then succeed"
#: The size of a file that shows whether there is room, some more than SQLite begins with: pages, and bytes of
#: each.
_PROBE, _PAGE = 16, 4 << 10
_WORDS = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "your disk quota is used up"}
_HINTS = {
    errno.ENOSPC: _FREE_SPACE,
    errno.EDQUOT: _FREE_QUOTA,
    errno.EFBIG: "raise the limit on the size of files",
    errno.EROFS: "use a folder on a writable disk",
    errno.EACCES: "check the permissions of the file and of its folder",
    errno.EPERM: "check the permissions of the file and of its folder",
    errno.ENOENT: "it was moved or deleted: put it back",
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,
    errno.EMFILE: "raise the limit on open files",
    errno.ENOLCK: "put the store on a local disk",
    errno.ENAMETOOLONG: "use shorter names",
    errno.ETIMEDOUT: "try again after polypod gc has freed space; if the process that holds the "
    "lock is suspended, continue it",
}
#: Errors of a file system without locks, such as a network file system whose server has none.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})

#: Errors of a file system without hard links, such as that of a memory stick.
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


def place(path: str | os.PathLike[str]) -> Path:
    """The absolute path of a store, independent of later changes of the working directory. Raises StoreError
    for what is not a path.
    """
    try:
        named = b"\0" not in os.fsencode(path)
        found = Path(path).expanduser().absolute()
    except FileNotFoundError as error:
        raise StoreError(
            f"cannot use {str(path)!r}: the working directory no longer exists", hint="change to another one"
        ) from error
    except (RuntimeError, ValueError) as error:  # no such user; half a surrogate pair
        raise _no_place(path) from error
    if not named or not found.name:
        raise _no_place(path)
    return found


def _no_place(path: str | os.PathLike[str]) -> StoreError:
    return StoreError(
        f"cannot use {str(path)!r}: it is not a valid path for a store",
        hint="use the path of a file or a folder",
    )


def lock(descriptor: int, operation: int) -> None:
    """``fcntl.flock``, with an error that says if the file system has no locks. Raises OSError."""
    try:
        fcntl.flock(descriptor, operation)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise OSError(errno.ENOLCK, "its file system has no locks") from error
        raise


def has_locks(folder: Path) -> bool:
    """Whether files in a folder can be locked, as far as can be known."""
    try:
        with opened_folder(folder) as descriptor:
            lock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno != errno.ENOLCK
    return True


def read_file(path: Path) -> bytes:
    """The whole content of a file; empty for a pipe or a device in its place, which may have no end. Raises
    OSError.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return file.read() if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""


def name_file(draft: Path, path: Path) -> None:
    """Give a complete file another name that does not exist yet. It appears there at once; in a file system
    without hard links an empty file does for a moment. Raises FileExistsError, OSError.
    """
    try:
        os.link(draft, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            draft.replace(path)
        except OSError:
            path.unlink()
            raise


def is_of_full_disk(error: StoreError) -> bool:
    """Whether there was no room for a write, on the disk or within the user's quota."""
    return error.hint in {_FREE_SPACE, _FREE_QUOTA}


def find_no_room(path: Path) -> StoreError | None:
    """The error for a file, if there is no room in its folder. It is found by a new file there, since the
    system's numbers show no quotas.
    """
    import tempfile  # noqa: PLC0415 - paid for by those whose writes fail

    try:
        with tempfile.TemporaryFile(dir=path.parent, buffering=0) as file:
            for _ in range(_PROBE):  # a longer write may be cut short without an error
                file.write(bytes(_PAGE))
    except OSError as error:
        return store_error(error, path) if error.errno in _WORDS else None
    return None


def store_error(error: OSError, path: Path | str) -> StoreError:
    """The typed error that names the file and says what to do."""
    number = error.errno or 0
    words, hint = _WORDS.get(number, error.strerror or str(error)), _HINTS.get(number, "check the disk")
    if number == errno.ENOSPC and _has_room_but_not_for_files(Path(path)):
        words, hint = "the disk has no room for another file (no inodes)", _FREE_FILES
    return StoreError(f"cannot use {path}: {words}", hint=hint)


def _has_room_but_not_for_files(path: Path) -> bool:
    """Whether the disk of a file, which may not exist, has space left, but no names for more files."""
    try:
        found = os.statvfs(next((each for each in (path, *path.parents) if each.exists()), path))
    except OSError:
        return False
    return found.f_bavail > 0 and found.f_files > 0 == found.f_favail  # some disks do not count files


@contextlib.contextmanager
def opened_folder(folder: Path) -> Iterator[int]:
    """A descriptor of a folder, which stays valid if the folder is moved. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    with opened_folder(folder) as descriptor:
        os.fsync(descriptor)
