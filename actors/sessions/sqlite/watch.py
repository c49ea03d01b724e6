"""Notices when a SQLite database's files are replaced: the database, its write-ahead log, the log's index.

SQLite finds the log by its name. So it goes on writing into a file that nobody can find any more, and
it merges the log of one database into another that was put in its place. Who asks before each commit
whether the files are still those that were opened keeps it from both; that takes five system calls,
since whatever happens to a name changes the time of its folder.

Nothing here opens the database or the index: closing any descriptor of a file drops the locks that
SQLite holds on it in this process, so their bytes are read through SQLite's own descriptors.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from pathlib import Path
from typing import Literal

from actors.sessions.disk import store_error

#: What has happened to the files, by what can be done: ``gone``: the database is not there (it may come
#: back); ``replaced``: another stands in its place; ``relinked``: a link to it leads elsewhere;
#: ``overwritten``: it has another content; ``log``: its write-ahead log is gone or another; ``index``:
#: the index of that is; ``superseded``: so it is, and another process has gone on with new ones; ``cut``: log
#: or index was cut off; ``snapshot``: what nobody could write when it was opened may have been written since.
Change = Literal[
    "gone", "replaced", "relinked", "overwritten", "log", "index", "superseded", "cut", "snapshot"
]
#: Device and inode.
Identity = tuple[int, int]

#: Nanoseconds that no file system's clock stands still for.
_TICK = 50_000_000
_stat = os.stat  # not by way of a Path: on the path of every commit
_MAGIC = b"SQLite format 3\0"
_LOG_HEADER, _FRAME_HEADER = 32, 24
#: Bytes of an index up to where it counts merges (https://sqlite.org/walformat.html, section 2).
_INDEX_HEADER = 136


class FileWatch:
    """The files of one database as they were when it was opened; ``changed`` may be called on any thread."""

    def __init__(self, path: Path, given: Path | None = None) -> None:
        #: The name it was asked for by, where that goes by way of a link.
        self._link = None if given in {None, path} else str(given)
        self._path, self._parent = str(path), str(path.parent)
        self.log, self.index = f"{path}-wal", f"{path}-shm"
        self._lock = threading.Lock()
        self._descriptors: dict[Identity, int] = {}
        self._folder = -1
        self._folder_modified = -1
        self._log_descriptor = self._index_descriptor = -1
        self.main: Identity | None = None
        self.log_id: Identity | None = None
        self.index_id: Identity | None = None
        self._modified = self._size = self._log_size = self._index_size = 0
        self._begin = b""
        #: The beginning of the index, as of when the database was as remembered, and as it was read last.
        self._known_index = self._last_index = b""

    def remember(self, database: Identity | None) -> None:
        """Remember the files that SQLite has just opened; before that the database was ``database``.

        Raises OSError, and FileNotFoundError where it is another by now.
        """
        with self._lock:
            self._descriptors.clear()
            status = _stat(self._path)
            self.main = _identity(status)
            if self.main != database:
                raise FileNotFoundError(errno.ENOENT, "another file took its place just now", self._path)
            if self._folder < 0:
                self._folder = os.open(self._parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._remember_logs()
            self._look(self._read_index())

    def forget(self) -> None:
        """SQLite has closed the files."""
        with self._lock:
            if self._folder >= 0:
                os.close(self._folder)
            self._folder = self._folder_modified = self._log_descriptor = self._index_descriptor = -1
            self.main = self.log_id = self.index_id = None

    def _remember_logs(self) -> None:
        self._folder_modified = self._log_descriptor = self._index_descriptor = -1
        self.log_id = self.index_id = None
        log, index = status_of(self.log), status_of(self.index)
        if log is not None:
            self.log_id, self._log_size = _identity(log), log.st_size
        if index is not None:
            self.index_id, self._index_size = _identity(index), index.st_size

    def _look(self, index: bytes) -> None:
        """Remember the database as it was after the merges that the index counts, or later ones."""
        status = _stat(self._path)
        self._modified, self._size = status.st_mtime_ns, status.st_size
        self._begin = self._header()
        self._known_index = index

    def found(self) -> tuple[Identity | None, Identity | None]:
        """The log and the index that are there now."""
        return identity_of(self.log), identity_of(self.index)

    def holders(self, file: Identity | None) -> int:
        """How often this process has a file open; 0 where there is none."""
        return 0 if file is None else sum(_is_of(int(name), file) for name in os.listdir("/dev/fd"))  # noqa: PTH208

    def unopened(self, times: int) -> Change | None:
        """Which of the log and its index is not what this process has open (the log so many times), so that
        the one which is open has lost its name before it was remembered, and nobody would miss it.
        """
        if self.holders(self.log_id) != times:
            return "log"
        return None if self.holders(self.index_id) else "index"

    def changed(self, *, names_follow: bool = False) -> Change | None:
        """What has happened to the files since they were opened; None: nothing. ``names_follow``: whether
        ``is_undisturbed`` is asked next, so that the names need not be looked at twice. Raises StoreError
        where the disk fails.
        """
        try:
            return self._find_change(names_follow=names_follow)
        except OSError as error:
            raise store_error(error, self._path) from error

    def _find_change(self, *, names_follow: bool) -> Change | None:
        index = self._read_index_quickly()
        try:
            main = _stat(self._path)
            if (main.st_dev, main.st_ino) != self.main:
                return "replaced"
            if self._link is not None and identity_of(self._link) != self.main:
                return "relinked"
            if main.st_mtime_ns == self._modified and main.st_size == self._size:
                self._known_index = index  # a log that begins anew after a merge shows nothing of it
            elif self._overwritten():
                return "overwritten"
        except OSError:  # perhaps only since it was there a moment ago
            return "gone"
        readable = self._log_descriptor >= 0 and len(index) == _INDEX_HEADER
        if readable and (names_follow or self.is_undisturbed()):
            try:
                log, shm = os.fstat(self._log_descriptor), os.fstat(self._index_descriptor).st_size
            except OSError:  # SQLite has closed that descriptor
                pass
            else:
                same = (log.st_dev, log.st_ino) == self.log_id
                if same and log.st_size >= self._log_size and shm >= self._index_size:
                    self._log_size, self._index_size = log.st_size, shm
                    return None
        with self._lock:
            return self._logs_changed()

    def is_undisturbed(self) -> bool:
        """Whether no name in the folder has changed since ``changed`` looked; False where that is not known
        so quickly.
        """
        return os.fstat(self._folder).st_mtime_ns == self._folder_modified

    def note_commit(self) -> None:
        """Called after a commit of this process: that it began the log anew does not mean a merge since."""
        if not _is_merged(self._last_index):
            return
        index = self._read_index_quickly()
        if _merges(index) != _merges(self._known_index):
            status = status_of(self._path)
            if status and status.st_mtime_ns == self._modified and status.st_size == self._size:
                self._known_index = index

    def _logs_changed(self) -> Change | None:
        """What has happened to the log and its index, by their names."""
        if None in {self.log_id, self.index_id}:  # a file that may only be read, and has none
            self._remember_logs()
            return None
        folder = os.fstat(self._folder).st_mtime_ns
        log, index = status_of(self.log), status_of(self.index)
        if log is None or _identity(log) != self.log_id:
            return "log"
        if index is None or _identity(index) != self.index_id:
            return "index"
        # The index first: to touch what was cut off of it would end the process.
        if index.st_size < self._index_size or (log.st_size < self._log_size and self._is_cut(log.st_size)):
            return "cut"
        self._log_size, self._index_size = log.st_size, index.st_size
        # The clock of a file system ticks so slowly that what comes next might have the same time.
        self._folder_modified = folder if time.time_ns() - folder > _TICK else -1
        self._log_descriptor = self.descriptor(self.log_id)
        self._index_descriptor = self.descriptor(self.index_id)
        return None

    def _overwritten(self) -> bool:
        """Whether somebody other than SQLite has written to the database.

        SQLite writes to it only where it merges the log, and notes in the index how far it has come; and
        the counter in the database's header never goes back. A merge may go on while this looks: what it
        writes it has noted before, so the notes are compared as they are after the look, and kept as before.
        """
        with self._lock:
            before = self._read_index()
            status = _stat(self._path)
            header = self._header()
            merges = _merges(self._read_index())
            if not header.startswith(_MAGIC) or _counter(header) < _counter(self._begin):
                return True
            same = header == self._begin and status.st_size == self._size  # it was only touched
            if not same and merges and merges == _merges(self._known_index) and _is_settled(merges):
                return True
            self._look(before)
            return False

    def _is_cut(self, size: int) -> bool:
        """Whether a log of that size is too short for what the index says of it."""
        index = self._read(self.index_id, 48)
        if len(index) < 48:
            return False
        page, frames = (int.from_bytes(index[a:b], sys.byteorder) for a, b in ((14, 16), (16, 20)))
        return frames > 0 and size < _LOG_HEADER + frames * (_FRAME_HEADER + (page if page > 1 else 65536))

    def _header(self) -> bytes:
        return self._read(self.main, 100)

    def _read_index(self) -> bytes:
        """The beginning of the index, for ``_merges``; less where there is none."""
        self._last_index = index = self._read(self.index_id, _INDEX_HEADER)
        return index

    def _read_index_quickly(self) -> bytes:
        """The beginning of the index by the open descriptor; where another file has that by now, bytes that
        fit nothing.
        """
        if self._index_descriptor >= 0:
            try:
                self._last_index = index = os.pread(self._index_descriptor, _INDEX_HEADER, 0)
            except OSError:
                pass
            else:
                return index
        return self._read_index()

    def _read(self, identity: Identity | None, size: int) -> bytes:
        """The beginning of an open file, through a descriptor that SQLite has; empty where there is none."""
        descriptor = self.descriptor(identity)
        return b"" if descriptor < 0 else os.pread(descriptor, size, 0)

    def descriptor(self, identity: Identity | None) -> int:
        """One that this process has of that file; -1 where there is none."""
        if identity is None:
            return -1
        known = self._descriptors.get(identity, -1)
        if known >= 0 and _is_of(known, identity):
            return known
        for name in os.listdir("/dev/fd"):  # noqa: PTH208 - numbers, no paths
            if _is_of(int(name), identity):
                self._descriptors[identity] = int(name)
                return int(name)
        return -1


def _merges(index: bytes) -> tuple[bytes, ...]:
    """Which log it is, how far it is merged, and how far somebody has begun to merge it."""
    return (index[32:40], index[96:100], index[128:132]) if len(index) == _INDEX_HEADER else ()


def _is_merged(index: bytes) -> bool:
    """Whether all of the log is merged, so that the next commit may begin it anew."""
    return index[16:20] == index[96:100] or len(index) < _INDEX_HEADER


def _counter(header: bytes) -> int:
    return int.from_bytes(header[24:28], "big")


def _is_settled(merges: tuple[bytes, ...]) -> bool:
    """Whether nobody was merging the log, or had stopped in the middle of it."""
    return merges[1] == merges[2]


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


def _is_of(descriptor: int, identity: Identity) -> bool:
    try:
        return _identity(os.fstat(descriptor)) == identity
    except OSError:
        return False


def identity_of(path: Path | str) -> Identity | None:
    """What distinguishes the file that is there now from any other; None where there is none."""
    status = status_of(path)
    return None if status is None else _identity(status)


def status_of(path: Path | str) -> os.stat_result | None:
    """What the system says of a file; None where there is none."""
    try:
        return _stat(path)
    except OSError:
        return None
