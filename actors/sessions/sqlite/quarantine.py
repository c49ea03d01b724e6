"""Keeps SQLite from merging a write-ahead log into a database that it does not belong to.

Such logs are renamed. A note beside the database says which log it has, and which logs were retired.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from actors.sessions.disk import read_file
from actors.sessions.sqlite.watch import Change, FileWatch, Identity, identity_of, status_of
from protocol.text import UNDECODABLE

#: How many retired logs are remembered; a process that has one open closes it at its next commit.
_MOST_RETIRED = 16


class _Note(msgspec.Struct, frozen=True):
    """A database, its log and the latest index of that, and the logs that nobody may merge into the database
    any more.
    """

    main: Identity
    log: Identity
    retired: tuple[Identity, ...] = ()
    index: Identity | None = None


def put_aside(watch: FileWatch, change: Change) -> None:
    """Rename the log that was open, and its index, since another database is in its place now."""
    if change in {"replaced", "overwritten", "cut"}:
        for path, known in ((watch.log, watch.log_id), (watch.index, watch.index_id)):
            if identity_of(path) == known:
                _move(path)


def is_superseded(watch: FileWatch, database: Path) -> bool:
    """Whether another process has merged the open log, which has lost its name, or has made a new index of
    it.
    """
    noted = _noted(database)
    if noted is None or noted.main != watch.main:
        return False
    newer = noted.log == watch.log_id and noted.index not in {None, watch.index_id}
    return newer or watch.log_id in noted.retired


def is_other_noted(watch: FileWatch, database: Path) -> bool:
    """Whether the note names another log or index than the open ones, and that log is not retired."""
    noted = _last_used(database)
    return noted is not None and (noted.log, noted.index) != (watch.log_id, watch.index_id)


def remove_made(watch: FileWatch, database: Path, found: Sequence[Identity | None]) -> None:
    """Remove the log and index that a failed opening has created, if others or none were ``found`` before:
    another process may have those open, and the new ones would hide them. Call it at the gate.
    """
    noted = _last_used(database)
    if noted is None:
        return
    for path, known in (watch.log, noted.log), (watch.index, noted.index):
        there = status_of(path)
        made = there is not None and identity_of(path) not in {known, *found}
        if made and there is not None and (path == watch.index or not there.st_size):
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108


def _last_used(database: Path) -> _Note | None:
    """The note of the database's last log, unless that was retired."""
    noted = _noted(database)
    used = noted is not None and noted.main == identity_of(database) and noted.log not in noted.retired
    return noted if used else None


def is_last_retired(database: Path) -> bool:
    """Whether the database's last log was retired, so that a new one may be created."""
    noted = _noted(database)
    return noted is not None and noted.main == identity_of(database) and noted.log in noted.retired


def free_names(watch: FileWatch) -> Identity | None:
    """Free the names of the open log and its index for new ones, and return which log had the name. Another
    log there knows nothing of the open one's content, and is kept under another name. Call it at the gate.
    """
    there = identity_of(watch.log)
    if there == watch.log_id:
        with contextlib.suppress(OSError):
            os.unlink(watch.log)  # noqa: PTH108
    _move(watch.log)
    _move(watch.index)
    return there


def note_retired(watch: FileWatch, database: Path, there: Identity | None) -> None:
    """Note that the open log was merged: neither it nor the log ``there`` that had its name belongs to the
    database any more. Call it at the gate. Raises FileNotFoundError if the folder was moved away.
    """
    if watch.main is None or watch.log_id is None:
        return
    noted = _noted(database)
    retired = noted.retired if noted is not None and noted.main == watch.main else ()
    added = (watch.log_id,) if there in {None, watch.log_id} else (watch.log_id, there)
    _write(database, _Note(watch.main, watch.log_id, (*retired, *added)[-_MOST_RETIRED:], watch.index_id))


def put_stale_log_aside(
    watch: FileWatch, database: Path, gate: Callable[[], AbstractContextManager[object]]
) -> None:
    """Rename the log that a process has left beside a database which has been replaced since.

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
    noted = _noted(database)
    return noted is not None and noted.log == (log.st_dev, log.st_ino) and noted.main != identity_of(database)


def note_log(watch: FileWatch, database: Path) -> None:
    """Note which database the open log belongs to, for those who find the log after a crash, or lose it. Call
    it at the gate. Raises FileNotFoundError if the folder was moved away.
    """
    if watch.main is None or watch.log_id is None:
        return
    noted = _to_note(watch, database)
    if noted != _noted(database):  # without a note, a log is taken for that of the file beside it
        _write(database, noted)


def _to_note(watch: FileWatch, database: Path) -> _Note:
    assert watch.main is not None
    assert watch.log_id is not None
    noted = _noted(database)
    retired = noted.retired if noted is not None and noted.main == watch.main else ()
    # A log with the number of a retired one is a new file: nobody has the retired one open any more.
    left = tuple(each for each in retired if each != watch.log_id)
    return _Note(watch.main, watch.log_id, left, watch.index_id)


def _noted(database: Path) -> _Note | None:
    try:
        return msgspec.json.decode(read_file(_note(database)), type=_Note)
    except (OSError, *UNDECODABLE):
        return None


def _write(database: Path, noted: _Note) -> None:
    note = _note(database)
    draft = note.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    try:
        note.parent.mkdir(mode=0o700, exist_ok=True)
        draft.touch(mode=0o600)
        draft.write_bytes(msgspec.json.encode(noted))
        draft.replace(note)
    except FileNotFoundError:  # the folder was moved away with the old note, which would be believed
        raise
    except OSError:  # a read-only folder has no note
        with contextlib.suppress(OSError):  # on a full disk it is empty
            draft.unlink()


def has_notes(database: Path) -> bool:
    """Whether there is a folder for notes beside the database; not before its first opening."""
    return _note(database).parent.exists()


def _note(database: Path) -> Path:
    return database.with_name(database.name + ".writers") / "log"


def _move(path: str) -> None:
    """Rename a log or index; an empty log is deleted."""
    with contextlib.suppress(OSError):
        if os.stat(path).st_size and path.endswith("-wal"):  # noqa: PTH116
            os.replace(path, f"{path}.{time.time_ns()}.replaced")  # noqa: PTH105
        else:
            os.unlink(path)  # noqa: PTH108
