"""Finds out which other processes and stores have a database open, by the locks that SQLite takes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from actors.sessions.sqlite.quarantine import is_last_retired, is_other_noted
from actors.sessions.sqlite.watch import FileWatch, Identity, identity_of
from protocol.errors import StoreError

#: The bytes of a database that SQLite locks as long as it has it open; and what the header of one with a
#: write-ahead log says. Both are from SQLite's file format.
_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510
_LOGGED_AT, _LOGGED = 18, b"\2\2"


def _flock(kind: int, start: int, length: int) -> bytes:
    """The system's ``struct flock``."""
    if sys.platform == "darwin":
        return struct.pack("qqihh", start, length, 0, kind, os.SEEK_SET)
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)


def _kind_of(flock: bytes) -> int:
    at = 20 if sys.platform == "darwin" else 0
    return int.from_bytes(flock[at : at + 2], sys.byteorder)


class _Opening:
    """Held while a connection to a database is opened or closed. Looking at another process's locks meanwhile
    would drop those that SQLite takes, and whoever opens the first connection of a store counts what this
    process has open.
    """

    def __init__(self) -> None:
        self.locks: dict[Path, threading.Lock] = {}


_opening = _Opening()


def opening(database: Path) -> threading.Lock:
    """The lock to hold while a connection to that file is opened or closed. Its holder must not wait for a
    gate.
    """
    return _opening.locks.setdefault(database, threading.Lock())


def check_stores(watch: FileWatch, database: Path, stores: Iterable[FileWatch]) -> None:
    """Raise StoreError if one of the process's other stores still has a log of the file that has lost its
    name: SQLite has only one index of the log for all connections of a process to a file.
    """
    main, (log, _) = identity_of(database), watch.found()
    for other in stores:
        if other is not watch and other.main == main is not None and other.log_id not in {None, log}:
            raise StoreError(
                f"cannot use {database}: another store in this process has it open with a "
                "write-ahead log that was deleted or replaced",
                hint="use that store once more, or close it",
            )


def is_lost_elsewhere(watch: FileWatch, database: Path) -> bool:
    """Whether another process has the database open with a log or an index that is not there. Whoever opened
    the database now would miss what is in it, or overwrite it. Call it at the gate, with ``opening`` held.
    """
    if None not in watch.found():
        return False
    return not is_last_retired(database) and _is_open_elsewhere(watch, database)


def was_lost_elsewhere(watch: FileWatch, database: Path, found: Sequence[Identity | None]) -> bool:
    """Whether another process has the database open with a log or an index that was lost before this process
    opened it, so that SQLite created new ones in place of what was ``found``. Call it at the gate.
    """
    if None not in found and tuple(found) == (watch.log_id, watch.index_id):
        return False
    return is_other_noted(watch, database) and is_locked_elsewhere(watch.descriptor(watch.main))


def put_stray_journal_aside(watch: FileWatch, database: Path) -> None:
    """Move away a rollback journal beside a database with a write-ahead log, which has none of its own:
    SQLite would play back whatever somebody has put there. Call it with ``opening`` held, or if this process
    has the file open.
    """
    journal = f"{database}-journal"
    with contextlib.suppress(OSError):
        # SQLite ignores an empty one.
        if os.lstat(journal).st_size and is_kept_with_log(watch, database):
            os.replace(journal, f"{journal}.{time.time_ns()}.replaced")  # noqa: PTH105


def is_kept_with_log(watch: FileWatch, database: Path) -> bool:
    """Whether the database has a write-ahead log, as far as it can be read. Call it with ``opening`` held, or
    if this process has the file open.
    """
    main = identity_of(database)
    try:
        if watch.holders(main):  # closing any descriptor of the file would drop SQLite's locks
            return os.pread(watch.descriptor(main), len(_LOGGED), _LOGGED_AT) == _LOGGED
        descriptor = os.open(database, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, len(_LOGGED), _LOGGED_AT) == _LOGGED
        finally:
            os.close(descriptor)
    except OSError:
        return False


def _is_open_elsewhere(watch: FileWatch, database: Path) -> bool:
    """Whether another process has the database open, with a log, as far as that can be seen."""
    if watch.holders(identity_of(database)):
        return False  # open in another store of this process, whose locks would be dropped
    try:
        descriptor = os.open(database, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return is_locked_elsewhere(descriptor)
    finally:
        os.close(descriptor)


def is_locked_elsewhere(descriptor: int) -> bool:
    """Whether another process has locked the database, as it does while it has it open with a log."""
    try:
        if os.pread(descriptor, len(_LOGGED), _LOGGED_AT) != _LOGGED:
            return False
        asked = _flock(fcntl.F_WRLCK, _SHARED_FIRST, _SHARED_SIZE)
        return _kind_of(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked)) != fcntl.F_UNLCK
    except OSError:
        return False


def _after_fork_in_child() -> None:
    _opening.locks = {}  # other threads of the parent may have held some


os.register_at_fork(after_in_child=_after_fork_in_child)
