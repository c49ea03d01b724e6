"""Reads a database in a folder where no file may be made, so that SQLite cannot make the log's index."""

from __future__ import annotations

import os
from pathlib import Path

from actors.sessions.sqlite.watch import FileWatch, status_of


class Snapshot:
    """A database and its log as they are, which SQLite reads without any lock. Nobody has them open: who has,
    has made the index of the log. Whether somebody has written to them since is for its user to ask.
    """

    def __init__(self, watch: FileWatch, database: Path) -> None:
        self._watch = watch
        self._database = database
        self._files = self._state()
        _, log = self._files
        #: What to open the database with: SQLite has the index in memory, or takes no notice of a log.
        self.options = "vfs=unix-none" if log is not None and log[-1] else "immutable=1"
        self.first_statement = "PRAGMA locking_mode = EXCLUSIVE"

    @staticmethod
    def is_needed(watch: FileWatch, database: Path) -> bool:
        """Whether a database that is kept with a log can be read in no other way."""
        return status_of(watch.index) is None and not _may_be_written(database.parent)

    def is_current(self) -> bool:
        """Whether nobody has written to the files, nor may do so as others do."""
        return self.is_needed(self._watch, self._database) and self._state() == self._files

    def _state(self) -> tuple[tuple[int, ...] | None, ...]:
        found = status_of(self._database), status_of(self._watch.log)
        return tuple(each and (each.st_dev, each.st_ino, each.st_mtime_ns, each.st_size) for each in found)


def _may_be_written(folder: Path) -> bool:
    return os.access(folder, os.W_OK, effective_ids=True)
