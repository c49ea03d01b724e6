"""Turns SQLite's errors into typed errors that say what to do."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

from actors.sessions.disk import find_no_room, has_locks, store_error
from actors.sessions.sqlite.watch import Change
from protocol.errors import StoreError

_MEANINGS = {
    sqlite3.SQLITE_BUSY: (
        "another process has locked it",
        "close the program that holds it, for example a database browser with an open transaction",
    ),
    sqlite3.SQLITE_LOCKED: ("it is locked", "close the program that holds it"),
    sqlite3.SQLITE_READONLY: (
        "it is not writable",
        "check the permissions of the file and of its folder",
    ),
    sqlite3.SQLITE_PERM: ("permission denied", "check the permissions of the file and of its folder"),
    sqlite3.SQLITE_CANTOPEN: (
        "it cannot be opened",
        "check that it is a file and that you may write to it and its folder",
    ),
    sqlite3.SQLITE_NOTADB: (
        "it is not a SQLite database",
        "choose another file, or move this one away",
    ),
    sqlite3.SQLITE_CORRUPT: (
        "it is damaged",
        "restore it from a copy, or recover what is readable with: polypod fsck --repair",
    ),
    sqlite3.SQLITE_IOERR: ("the disk failed", "check the disk, its free space, and your disk quota"),
    sqlite3.SQLITE_TOOBIG: ("an entry is too large for it", "keep entries below a gigabyte"),
}

#: The codes with which SQLite reports that it cannot lock a file, for whatever reason.
_OF_LOCKS = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR})

#: The codes with which SQLite also reports that a quota, or the number of files, is used up.
_OF_ROOM = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})

#: Message and hint for files that are no longer those that were opened.
_CHANGES: dict[Change, tuple[str, str]] = {
    "gone": ("it was moved or deleted", "put it back, or restart the program"),
    "replaced": (
        "another file has taken its place",
        "sessions continue with what the new file contains",
    ),
    "relinked": ("the symlink now leads to another file", "restart the program"),
    "overwritten": (
        "it was overwritten while it was open",
        "sessions continue with what the file contains now",
    ),
    "log": (
        "its write-ahead log (the file named -wal) was deleted or replaced",
        "nothing committed is lost: the database contains it now; do not touch the -wal and -shm files",
    ),
    "superseded": (
        "its write-ahead log or the log's index was deleted or replaced, and another process made new ones",
        "nothing committed is lost: the database contains it now; do not touch the -wal and -shm files",
    ),
    "index": (
        "the index of its write-ahead log (the file named -shm) was deleted or replaced",
        "nothing is lost; do not touch the -wal and -shm files",
    ),
    "cut": (
        "its write-ahead log or the log's index was truncated",
        "what the database contains is intact; do not touch the -wal and -shm files",
    ),
    "snapshot": ("it was opened read-only, and may have been written since", "try again"),
}


def is_busy(error: sqlite3.Error) -> bool:
    """Whether the same statement may succeed in a moment."""
    return _code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def is_read_only(error: sqlite3.Error) -> bool:
    """Whether the file can be read but not written."""
    return _code(error) == sqlite3.SQLITE_READONLY


def no_room_error(error: sqlite3.Error, path: Path) -> StoreError | None:
    """The typed error if a full disk or a quota is the cause of an error."""
    if _code(error) == sqlite3.SQLITE_FULL or _lacks_room_for_index(error):
        return full_error(path)
    return find_no_room(path) if _code(error) in _OF_ROOM else None


def _lacks_room_for_index(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_SHMSIZE


def lacks_table(error: sqlite3.Error) -> bool:
    """Whether a table is missing that is created with its first row."""
    return "no such table" in str(error)


def needs_reopening(error: sqlite3.Error) -> bool:
    """Whether a connection may keep failing although the cause of the error is gone."""
    return _code(error) in {
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_IOERR,
    }


def _code(error: sqlite3.Error) -> int:
    """The primary error code, which is the last byte of an extended code."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def sqlite_error(error: sqlite3.Error, path: Path) -> StoreError:
    """The typed error that says what a SQLite error means and what to do about it."""
    code = _code(error)
    if (full := no_room_error(error, path)) is not None:
        return full
    if code in _OF_LOCKS and not has_locks(path.parent):
        return store_error(OSError(errno.ENOLCK, "its file system has no locks"), path)
    meaning, hint = _MEANINGS.get(code, (str(error), None))
    return StoreError(f"cannot use {path}: {meaning}", hint=hint)


def full_error(path: Path) -> StoreError:
    """The typed error for a file that needs more room than there is."""
    return find_no_room(path) or store_error(OSError(errno.ENOSPC, ""), path)


def damaged_error(path: Path) -> StoreError:
    """The typed error for a file in which SQLite finds damage."""
    meaning, hint = _MEANINGS[sqlite3.SQLITE_CORRUPT]
    return StoreError(f"cannot use {path}: {meaning}", hint=hint)


def lost_elsewhere_error(path: Path) -> StoreError:
    """The typed error for a log that only another process can still reach, and has to merge first."""
    return StoreError(
        f"cannot use {path}: another process has it open with a log that was deleted",
        hint="use that process once more, or stop it",
    )


def change_error(change: Change, path: Path) -> StoreError:
    """The typed error that says how the files differ from those that were opened, and what to do."""
    what, hint = _CHANGES[change]
    if change == "gone":
        try:
            path.stat()
        except OSError as error:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                return store_error(error, path)
    return StoreError(f"cannot {'read' if change == 'snapshot' else 'write'} {path}: {what}", hint=hint)
