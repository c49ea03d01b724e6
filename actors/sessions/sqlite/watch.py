"""``FileWatch``: notices when a SQLite database, its write-ahead log or the log's index is replaced.

SQLite finds the log by its name. So it may keep writing into a log that nobody can find any more, or merge
the log of one database into another that was put in its place. Checking the files before each commit prevents
both. It takes five system calls, since any change of a name changes the time of its folder.

Nothing here opens the database or the index: closing any descriptor of a file drops the locks that SQLite
holds on it in this process. So their bytes are read through SQLite's own descriptors.
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

#: What has happened to the files. ``gone``: the database does not exist (it may come back); ``replaced``:
#: another is in its place; ``relinked``: a link to it leads elsewhere; ``overwritten``: its content is
#: another; ``log``: its write-ahead log is gone or another; ``index``: the index of the log is;
#: ``superseded``: so it is, and another process already uses new ones; ``cut``: log or index was truncated;
#: ``snapshot``: what nobody could write when it was opened may have been written since.
Change = Literal[
    "gone", "replaced", "relinked", "overwritten", "log", "index", "superseded", "cut", "snapshot"
]
#: Device and inode.
Identity = tuple[int, int]

#: Nanoseconds; every file system's clock has moved on after that.
_TICK = 50_000_000
_stat = os.stat  # without a Path, since each commit calls it
_MAGIC = b"SQLite format 3\0"
#: Bytes of the headers of a log and of each of its frames (https://sqlite.org/fileformat2.html, section 4).
LOG_HEADER, FRAME_HEADER = 32, 24
#: Bytes of an index up to where it counts merges (https://sqlite.org/walformat.html, section 2).
_INDEX_HEADER = 136


class FileWatch:
    """The files of one database as they were when it was opened. ``changed`` is thread-safe."""

    def __init__(self, path: Path, given: Path | None = None) -> None:
        #: The name by which it was asked for, if that is a link.
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
        #: The beginning of the index when the database was as remembered, and when it was last read.
        self._known_index = self._last_index = b""

    def remember(self, database: Identity | None) -> None:
        """Remember the files that SQLite has just opened. Before that, the database was ``database``.

        Raises OSError, and FileNotFoundError if it is another by now.
        """
        with self._lock:
            self._descriptors.clear()
            status = _stat(self._path)
            self.main = _identity(status)
            if self.main != database:
                raise FileNotFoundError(errno.ENOENT, "another file has just taken its place", self._path)
            if self._folder < 0:
                self._folder = os.open(self._parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._remember_logs()
            self._look(self._read_index())

    def forget(self) -> None:
        """Forget the files, which SQLite has closed."""
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
        """The log and the index that exist now."""
        return identity_of(self.log), identity_of(self.index)

    def holders(self, file: Identity | None) -> int:
        """How often this process has a file open; 0 if the file does not exist."""
        return 0 if file is None else sum(_is_of(int(name), file) for name in os.listdir("/dev/fd"))  # noqa: PTH208

    def unopened(self, times: int) -> Change | None:
        """Which of log and index is not the one that this process has open (the log so many times). Then the
        open one lost its name before it was remembered, and nobody would notice.
        """
        if self.holders(self.log_id) != times:
            return "log"
        return None if self.holders(self.index_id) else "index"

    def changed(self, *, names_follow: bool = False) -> Change | None:
        """What has happened to the files since they were opened; None: nothing. ``names_follow`` says that
        ``is_undisturbed`` is asked next, so that the names need not be checked twice. Raises StoreError if
        the disk fails.
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
                self._known_index = index  # after a merge, a restarted log shows no trace of it
            elif self._overwritten():
                return "overwritten"
        except OSError:  # perhaps it was only just there
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
        """Whether no name in the folder has changed since ``changed`` was called; False if that is not
        known so quickly.
        """
        return os.fstat(self._folder).st_mtime_ns == self._folder_modified

    def note_commit(self) -> None:
        """Note a commit of this process: a log that it restarted does not mean a merge since."""
        if not _is_merged(self._last_index):
            return
        index = self._read_index_quickly()
        if _merges(index) != _merges(self._known_index):
            status = status_of(self._path)
            if status and status.st_mtime_ns == self._modified and status.st_size == self._size:
                self._known_index = index

    def _logs_changed(self) -> Change | None:
        """What has happened to the log and its index, judging by their names."""
        if None in {self.log_id, self.index_id}:  # a read-only file, which has none
            self._remember_logs()
            return None
        folder = os.fstat(self._folder).st_mtime_ns
        log, index = status_of(self.log), status_of(self.index)
        if log is None or _identity(log) != self.log_id:
            return "log"
        if index is None or _identity(index) != self.index_id:
            return "index"
        # The index first: touching what was truncated of it would kill the process.
        if index.st_size < self._index_size or (log.st_size < self._log_size and self._is_cut(log.st_size)):
            return "cut"
        self._log_size, self._index_size = log.st_size, index.st_size
        # Clocks of file systems tick so slowly that the next change might have the same time.
        self._folder_modified = folder if time.time_ns() - folder > _TICK else -1
        self._log_descriptor = self.descriptor(self.log_id)
        self._index_descriptor = self.descriptor(self.index_id)
        return None

    def _overwritten(self) -> bool:
        """Whether somebody other than SQLite has written to the database.

        SQLite writes to it only to merge the log. It notes in the index how far it has come, and the change
        counter in the database's header never goes back. A merge may be under way during the look, but it
        notes what it will write first: so the notes are compared as they are after the look, and kept as
        before.
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
        return frames > 0 and size < LOG_HEADER + frames * (FRAME_HEADER + (page if page > 1 else 65536))

    def _header(self) -> bytes:
        return self._read(self.main, 100)

    def _read_index(self) -> bytes:
        """The beginning of the index, for ``_merges``; shorter if there is none."""
        self._last_index = index = self._read(self.index_id, _INDEX_HEADER)
        return index

    def _read_index_quickly(self) -> bytes:
        """The beginning of the index by the open descriptor; if another file has that descriptor by now,
        bytes that fit nothing.
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
        """The beginning of an open file, through a descriptor of SQLite's; empty if it has none."""
        descriptor = self.descriptor(identity)
        return b"" if descriptor < 0 else os.pread(descriptor, size, 0)

    def descriptor(self, identity: Identity | None) -> int:
        """A descriptor that this process has of that file; -1 if it has none."""
        if identity is None:
            return -1
        known = self._descriptors.get(identity, -1)
        if known >= 0 and _is_of(known, identity):
            return known
        for name in os.listdir("/dev/fd"):  # noqa: PTH208 - numbers, not paths
            if _is_of(int(name), identity):
                self._descriptors[identity] = int(name)
                return int(name)
        return -1


def _merges(index: bytes) -> tuple[bytes, ...]:
    """Which log it is, how far it is merged, and how far somebody has begun to merge it."""
    return (index[32:40], index[96:100], index[128:132]) if len(index) == _INDEX_HEADER else ()


def _is_merged(index: bytes) -> bool:
    """Whether the whole log is merged, so that the next commit may restart it."""
    return index[16:20] == index[96:100] or len(index) < _INDEX_HEADER


def _counter(header: bytes) -> int:
    return int.from_bytes(header[24:28], "big")


def _is_settled(merges: tuple[bytes, ...]) -> bool:
    """Whether nobody was merging the log, or stopped in the middle of it."""
    return merges[1] == merges[2]


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


def _is_of(descriptor: int, identity: Identity) -> bool:
    try:
        return _identity(os.fstat(descriptor)) == identity
    except OSError:
        return False


def identity_of(path: Path | str) -> Identity | None:
    """The identity of the file that exists now; None if there is none."""
    status = status_of(path)
    return None if status is None else _identity(status)


def status_of(path: Path | str) -> os.stat_result | None:
    """The status of a file; None if there is none."""
    try:
        return _stat(path)
    except OSError:
        return None
