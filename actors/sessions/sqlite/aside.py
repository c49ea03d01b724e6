"""Logs that lie beside a database and belong to another one: kept out of its way, under another name."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from actors.sessions.sqlite.watch import Change, FileWatch, Identity, identity_of, status_of


class _Note(msgspec.Struct, frozen=True):
    """Which database a log belongs to."""

    main: Identity
    log: Identity


def put_aside(watch: FileWatch, change: Change) -> None:
    """Take the log that was open, and its index, away from the database that is there now."""
    for path, known in ((watch.log, watch.log_id), (watch.index, watch.index_id)):
        # Where the log lost its name, what has that now knows nothing of what was merged from it.
        if change == "log" or (change not in {"index", "relinked"} and identity_of(path) == known):
            _move(path)


def put_stale_log_aside(
    watch: FileWatch, database: Path, gate: Callable[[], AbstractContextManager[object]]
) -> None:
    """The same for a log that a process left behind over a database which has been replaced since.

    Raises OSError.
    """
    if _has_stale_log(watch, database):
        with gate():
            if _has_stale_log(watch, database):
                _move(watch.log)
                _move(watch.index)


def _has_stale_log(watch: FileWatch, database: Path) -> bool:
    log = status_of(watch.log)
    if log is None or not log.st_size:
        return False
    try:
        noted = msgspec.json.decode(_note(database).read_bytes(), type=_Note)
    except (OSError, msgspec.DecodeError):
        return False
    return noted.log == (log.st_dev, log.st_ino) and noted.main != identity_of(database)


def note_log(watch: FileWatch, database: Path) -> None:
    """Note which database the open log belongs to, for who finds it after a crash."""
    if watch.main is None or watch.log_id is None:
        return
    note, data = _note(database), msgspec.json.encode(_Note(watch.main, watch.log_id))
    with contextlib.suppress(OSError):  # without it a log is taken for the one of the file beside it
        try:
            if note.read_bytes() == data:
                return
        except FileNotFoundError:
            note.parent.mkdir(mode=0o700, exist_ok=True)
        draft = note.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        draft.touch(mode=0o600)
        draft.write_bytes(data)
        draft.replace(note)


def _note(database: Path) -> Path:
    return database.with_name(database.name + ".writers") / "log"


def _move(path: str) -> None:
    """Out of the way; where there is anything in a log it is kept under another name."""
    with contextlib.suppress(OSError):
        if os.stat(path).st_size and path.endswith("-wal"):  # noqa: PTH116
            os.replace(path, f"{path}.{time.time_ns()}.replaced")  # noqa: PTH105
        else:
            os.unlink(path)  # noqa: PTH108
