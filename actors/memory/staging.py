"""The staging folder: what extractions found, a file each, until a consolidation merges it into the notes."""

from __future__ import annotations

import contextlib
import stat
import time
import uuid
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from actors.memory.atomic_files import is_text, write_whole
from actors.memory.findings import Extracted
from actors.memory.notes import Note, notes_of
from actors.runtime.redact import without_secrets
from actors.sessions.head import new_session_id
from protocol.errors import WireError
from protocol.text import UNDECODABLE

SUFFIX = ".json"
#: The version of UUIDs that begin with the time.
_TIMED = 7


class Staged(msgspec.Struct, frozen=True):
    """What one extraction found, and where, as stored in a staging file."""

    session_id: str
    start: int
    end: int
    found: Extracted

    @property
    def source(self) -> str:
        """Where it was found, as notes name it."""
        return f"{self.session_id}:{self.start}-{self.end}"

    def notes(self, date: str) -> list[Note]:
        """The findings as notes, without a model's help."""
        return notes_of(self.found, source=self.source, date=date)


class Waiting(NamedTuple):
    """A file that waits for its consolidation; ``size`` in bytes."""

    id: str
    path: Path
    size: int

    @property
    def date(self) -> str:
        """The day on which it was staged (2026-01-31), by its name; empty if the name has none."""
        name = _timed(self.id)
        return "" if name is None else time.strftime("%Y-%m-%d", time.gmtime((name.int >> 80) / 1000))


def stage(folder: Path, record: Staged) -> Path:
    """Write what was found to a file, readable by its owner alone, without secrets, whole or not at all.

    Raises OSError.
    """
    path = folder / f"{_next_id(folder)}{SUFFIX}"
    # Each text by itself: in the whole JSON a secret could seem to extend past its quotation marks.
    safe = without_secrets(msgspec.json.decode(msgspec.json.encode(record)))
    write_whole(path, msgspec.json.encode(safe).decode())
    return path


def _next_id(folder: Path) -> str:
    """A new id, greater than those of all waiting files: of contradictions the later one holds, even if the
    clock was set back. Raises OSError.
    """
    id_ = new_session_id()
    ids = (name for file in waiting(folder) if (name := _timed(file.id)) is not None)
    last = max(ids, key=lambda each: each.int, default=None)
    if last is None or last.int < uuid.UUID(id_).int:
        return id_
    millis = min((last.int >> 80) + 1, (1 << 48) - 1)
    return str(uuid.UUID(int=(millis << 80) | (uuid.UUID(id_).int & ((1 << 80) - 1))))


def _timed(id_: str) -> uuid.UUID | None:
    """The id as a UUID that begins with the time; None if it is another name."""
    try:
        name = uuid.UUID(id_)
    except ValueError:
        return None
    return name if name.version == _TIMED else None


def waiting(folder: Path, consumed: Collection[str] = ()) -> list[Waiting]:
    """The staged files, oldest first, without those whose ids are ``consumed``. Raises OSError."""
    try:
        found = sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    files = []
    for path in found:
        if path.suffix != SUFFIX or path.name[0] == "." or path.stem in consumed or not is_text(path.name):
            continue
        with contextlib.suppress(FileNotFoundError):  # consolidated at this moment
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                files.append(Waiting(path.stem, path, status.st_size))
    return files


def read_staged(path: Path) -> Staged:
    """The content of a staged file. Raises WireError if it is damaged, OSError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Staged)
    except UNDECODABLE as error:
        raise WireError(f"{path} is not a staged extraction: {error}") from error


def set_aside(path: Path) -> Path:
    """Rename a damaged file so that nobody reads it again. Raises OSError."""
    return path.rename(path.with_name(f"{path.name}.damaged"))


def earlier_readings(path: Path) -> list[Path]:
    """The staged files with earlier readings of the stretch in the file at ``path``. Raises OSError,
    WireError.
    """
    new = read_staged(path)
    found = []
    for file in waiting(path.parent):
        if file.path == path:
            continue
        with contextlib.suppress(FileNotFoundError, WireError):
            old = read_staged(file.path)
            if (old.session_id, old.start) == (new.session_id, new.start) and old.end <= new.end:
                found.append(file.path)
    return found


def newest_readings(records: Iterable[Staged]) -> list[Staged]:
    """The records without those of a stretch that was read again: a pod that was killed before it could
    record how far it had read begins at the same place.
    """
    found: dict[tuple[str, int], Staged] = {}
    for record in records:
        key = (record.session_id, record.start)
        known = found.get(key)
        if known is None or known.end <= record.end:
            found[key] = record
    return list(found.values())
