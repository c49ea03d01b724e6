"""Folders that a process keeps locked while it lives; the lock ends with it, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

_FOLDER = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW


def hold_folder(path: str) -> int | None:
    """Lock a folder that was just made: returns a descriptor, which is closed to release it. None if another
    process took the folder for an unused one. Raises OSError.
    """
    try:
        handle = os.open(path, _FOLDER)
    except FileNotFoundError:
        return None
    if _lock(handle, without_locks=True) and _is_at(path, handle):
        return handle
    os.close(handle)
    return None


@contextlib.contextmanager
def taking_unheld(path: str) -> Iterator[bool]:
    """Whether a folder is of this user and nobody holds it; then nobody else takes it meanwhile."""
    try:
        handle = os.open(path, _FOLDER)
    except OSError:
        yield False
        return
    try:
        is_own = os.fstat(handle).st_uid == os.geteuid()
        yield is_own and _lock(handle, without_locks=False) and _is_at(path, handle)
    finally:
        os.close(handle)


def _lock(handle: int, *, without_locks: bool) -> bool:
    """Whether nobody else holds what is held from now on; ``without_locks`` is the answer on a file system
    that has none.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return without_locks
    return True


def _is_at(path: str, handle: int) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except OSError:
        return False
