"""Quarantines write-ahead logs that lie beside a database but belong to another one."""

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

#: Retired logs that are remembered; who has one open lets go of it with the next commit.
_MOST_RETIRED = 16


class _Note(msgspec.Struct, frozen=True):
    """Which database a log belongs to, the index of it that was made last, and the logs that nobody may merge
    into the database any more.
    """

    main: Identity
    log: Identity
    retired: tuple[Identity, ...] = ()
    index: Identity | None = None


def put_aside(watch: FileWatch, change: Change) -> None:
    """Take the log that was open, and its index, away from the database that is there now."""
    if change in {"replaced", "overwritten", "cut"}:
        for path, known in ((watch.log, watch.log_id), (watch.index, watch.index_id)):
            if identity_of(path) == known:
                _move(path)


def is_superseded(watch: FileWatch, database: Path) -> bool:
    """Whether another process has merged the open log, which lost its name, or has made a new index of it."""
    noted = _noted(database)
    if noted is None or noted.main != watch.main:
        return False
    newer = noted.log == watch.log_id and noted.index not in {None, watch.index_id}
    return newer or watch.log_id in noted.retired


def is_other_noted(watch: FileWatch, database: Path) -> bool:
    """Whether the database had another log, or another index of it, than those that are open, and nobody
    has retired it.
    """
    noted = _last_used(database)
    return noted is not None and (noted.log, noted.index) != (watch.log_id, watch.index_id)


def remove_made(watch: FileWatch, database: Path, found: Sequence[Identity | None]) -> None:
    """Remove the log and the index that a failed opening has made where others were ``found`` before, or
    none: another process may have those open that they would hide. At the gate.
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
    """The note of the log that the database had last, unless that was retired."""
    noted = _noted(database)
    used = noted is not None and noted.main == identity_of(database) and noted.log not in noted.retired
    return noted if used else None


def is_last_retired(database: Path) -> bool:
    """Whether the last log that the database had was retired, so that a new one may be made."""
    noted = _noted(database)
    return noted is not None and noted.main == identity_of(database) and noted.log in noted.retired


def free_names(watch: FileWatch) -> Identity | None:
    """Have the names of the open log and its index free for new ones; which log had the name. Another knows
    nothing of what the open one holds, and is kept under another name. At the gate.
    """
    there = identity_of(watch.log)
    if there == watch.log_id:
        with contextlib.suppress(OSError):
            os.unlink(watch.log)  # noqa: PTH108
    _move(watch.log)
    _move(watch.index)
    return there


def note_retired(watch: FileWatch, database: Path, there: Identity | None) -> None:
    """Note that the open log was merged: neither it nor the one that had its name is the database's any more.
    At the gate. Raises FileNotFoundError where the folder was moved away.
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
    """Move away the log that a process left behind over a database which has been replaced since.

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
    """Note which database the open log belongs to, for who finds it after a crash, and who lost it. At the
    gate. Raises FileNotFoundError where the folder was moved away.
    """
    if watch.main is None or watch.log_id is None:
        return
    noted = _to_note(watch, database)
    if noted != _noted(database):  # without it a log is taken for the one of the file beside it
        _write(database, noted)


def _to_note(watch: FileWatch, database: Path) -> _Note:
    assert watch.main is not None
    assert watch.log_id is not None
    noted = _noted(database)
    retired = noted.retired if noted is not None and noted.main == watch.main else ()
    # One that has the number of a retired one is another: nobody has that open any more.
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
    except FileNotFoundError:  # the folder was moved away: the old note is still in it, and would be believed
        raise
    except OSError:  # a folder that may only be read has none
        with contextlib.suppress(OSError):  # on a full disk it is empty
            draft.unlink()


def has_notes(database: Path) -> bool:
    """Whether there is a folder for them, beside the database: not before it was opened once."""
    return _note(database).parent.exists()


def _note(database: Path) -> Path:
    return database.with_name(database.name + ".writers") / "log"


def _move(path: str) -> None:
    """Out of the way; where there is anything in a log it is kept under another name."""
    with contextlib.suppress(OSError):
        if os.stat(path).st_size and path.endswith("-wal"):  # noqa: PTH116
            os.replace(path, f"{path}.{time.time_ns()}.replaced")  # noqa: PTH105
        else:
            os.unlink(path)  # noqa: PTH108
