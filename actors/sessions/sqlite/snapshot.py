"""Reads a database without SQLite's index of the log, in a read-only folder or on a full disk."""

from __future__ import annotations

import os
from pathlib import Path

from actors.sessions.disk import find_no_room
from actors.sessions.sqlite.watch import FRAME_HEADER, LOG_HEADER, FileWatch, status_of

#: The smallest size of an index, in bytes (https://sqlite.org/walformat.html, section 2.1).
_INDEX_BLOCK = 32 << 10


class Snapshot:
    """A database and its log as they are, which SQLite reads without any lock. Nobody else has them open:
    whoever had would have created the index. Its user must check whether somebody has written to them since.
    """

    def __init__(self, watch: FileWatch, database: Path, *, of_full_disk: bool = False) -> None:
        self._watch = watch
        self._database = database
        #: Whether only the space for the index is missing, so that others may write once there is some.
        self.of_full_disk = of_full_disk
        self._files = self._state()
        #: The options to open the database with: SQLite keeps the index in memory, or ignores the log. It
        #: would delete a log without a commit on closing, and another process may use that log by then.
        self.options = "vfs=unix-none" if _has_commit(watch.log) else "immutable=1"
        self.first_statement = "PRAGMA locking_mode = EXCLUSIVE"

    @staticmethod
    def is_needed(watch: FileWatch, database: Path) -> bool:
        """Whether a database with a log can be read in no other way."""
        return Snapshot.is_safe(watch) and not _may_be_written(database.parent)

    @staticmethod
    def is_safe(watch: FileWatch) -> bool:
        """Whether nobody can have the database open for writing: there is no index of the log, or only the
        beginning of one, for which there was no space.
        """
        index = status_of(watch.index)
        return index is None or index.st_size < _INDEX_BLOCK

    def is_current(self) -> bool:
        """Whether nobody has written to the files, or can do so in the usual way."""
        allowed = self.of_full_disk or not _may_be_written(self._database.parent)
        return allowed and self.is_safe(self._watch) and self._state() == self._files

    def has_room(self) -> bool:
        """Whether the full disk for which this was made has room again."""
        return self.of_full_disk and find_no_room(self._database) is None

    def _state(self) -> tuple[tuple[int, ...] | None, ...]:
        found = status_of(self._database), status_of(self._watch.log)
        return tuple(each and (each.st_dev, each.st_ino, each.st_mtime_ns, each.st_size) for each in found)


def _may_be_written(folder: Path) -> bool:
    return os.access(folder, os.W_OK, effective_ids=True)


def _has_commit(log: str) -> bool:
    """Whether a log contains a complete transaction, according to the headers of its frames."""
    try:
        with open(log, "rb") as file:  # noqa: PTH123 - a name, not a path
            header = file.read(LOG_HEADER)
            page, salts = int.from_bytes(header[8:12], "big"), header[16:24]
            end = os.fstat(file.fileno()).st_size
            for frame in range(LOG_HEADER, end - FRAME_HEADER - page + 1, FRAME_HEADER + page):
                file.seek(frame)
                found = file.read(FRAME_HEADER)
                if found[8:16] != salts:
                    return False
                if any(found[4:8]):  # the size of the database after the commit
                    return True
    except FileNotFoundError:
        pass
    return False
