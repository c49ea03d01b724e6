"""What SQLite's errors mean, and what to do about them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from protocol.errors import StoreError

_MEANINGS = {
    sqlite3.SQLITE_FULL: ("the disk is full", "free some space; what follows will be written then"),
    sqlite3.SQLITE_BUSY: (
        "another process has locked it",
        "close what holds it open, such as a database browser in a transaction",
    ),
    sqlite3.SQLITE_LOCKED: ("it is locked", "close what holds it open"),
    sqlite3.SQLITE_READONLY: (
        "it may not be written",
        "check the permissions of the file and of its folder",
    ),
    sqlite3.SQLITE_PERM: ("permission denied", "check the permissions of the file and of its folder"),
    sqlite3.SQLITE_CANTOPEN: (
        "it cannot be opened",
        "check that it is a file and that you may write to it and its folder",
    ),
    sqlite3.SQLITE_NOTADB: (
        "it is no SQLite database",
        "name another file, or move this one out of the way",
    ),
    sqlite3.SQLITE_CORRUPT: (
        "it is damaged",
        "restore it from a copy, or save what can be read with: polypod fsck --repair",
    ),
    sqlite3.SQLITE_IOERR: ("the disk failed", "check the disk and the space on it"),
    sqlite3.SQLITE_TOOBIG: ("an entry is too large for it", "keep entries below a gigabyte"),
}


def is_busy(error: sqlite3.Error) -> bool:
    """Whether the same statement may work in a moment."""
    return _code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def is_read_only(error: sqlite3.Error) -> bool:
    """Whether the file may be read and not written."""
    return _code(error) == sqlite3.SQLITE_READONLY


def needs_reopening(error: sqlite3.Error) -> bool:
    """Whether a connection may not get over the error although its cause goes away."""
    return _code(error) in {
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_IOERR,
    }


def _code(error: sqlite3.Error) -> int:
    """The primary error code; extended codes keep it in their last byte."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def sqlite_error(error: sqlite3.Error, path: Path) -> StoreError:
    """The typed error that says what a SQLite error means and what to do about it."""
    meaning, hint = _MEANINGS.get(_code(error), (str(error), None))
    return StoreError(f"cannot use {path}: {meaning}", hint=hint)
