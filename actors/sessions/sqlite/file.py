"""``SQLiteFile``: opens the file of a SQLite store, and notices when somebody replaces it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

from actors.runtime.fork import let_be
from actors.runtime.user_folders import make_private
from actors.runtime.weak import members_of
from actors.sessions.disk import store_error, sync_folder
from actors.sessions.sqlite.errors import (
    change_error,
    damaged_error,
    full_error,
    is_read_only,
    lost_elsewhere_error,
    no_room_error,
    sqlite_error,
)
from actors.sessions.sqlite.merger import MERGE_PATIENCE, Merger
from actors.sessions.sqlite.others import (
    check_stores,
    is_kept_with_log,
    is_locked_elsewhere,
    is_lost_elsewhere,
    opening,
    put_stray_journal_aside,
    was_lost_elsewhere,
)
from actors.sessions.sqlite.quarantine import (
    has_notes,
    is_superseded,
    note_log,
    put_aside,
    put_stale_log_aside,
    remove_made,
)
from actors.sessions.sqlite.schema import OPEN_PATIENCE, SCHEMA_VERSION, data_version, is_logged, prepare
from actors.sessions.sqlite.snapshot import Snapshot
from actors.sessions.sqlite.watch import Change, FileWatch, Identity, identity_of, status_of
from protocol.errors import StoreError

#: The ending of the name of a copy that is to replace the file.
COPY = ".compact"
_NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
_JOURNAL_LIMIT = 16 << 20
#: Seconds without a write after which a file that was copied into place counts as whole; a loop may wait for
#: so long.
_STILL = 0.1
#: Rollback journals that are put aside while one connection is opened, before this is given up.
_JOURNALS = 3
#: Changes after which the log must not be merged when the last connection is closed.
_NOT_MERGED = frozenset[Change]({"replaced", "overwritten", "cut"})
#: Changes that the last connection to be closed must check for, if nobody has noticed them.
_NOTICED_LAST = _NOT_MERGED | {"log", "index"}


class SQLiteFile:
    """The file of a SQLite store, and its open connections.

    All connections are to the same file: ``check`` and ``connect`` look whether it is still there as it was
    opened. If not, they set ``change``. Then no connection is given out before all are closed, and an
    unmerged log is put aside, so that nothing from one file gets into another.

    ``gate`` keeps other processes from doing the same meanwhile. ``lost`` is called (on any thread) when the
    file turns out to be another, with whether the held sessions may be others too. ``holds`` is called
    whenever the file is reopened, and says whether it has everything that was written before, since nobody
    sees what happens to a closed file.
    """

    def __init__(
        self,
        path: Path,
        gate: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
        lost: Callable[[bool], object] = bool,  # calls nobody
        holds: Callable[[sqlite3.Connection], bool] = lambda _: True,
    ) -> None:
        self._given = path
        self.path = Path(os.path.realpath(path))
        # Quoted, since characters in a name may have a meaning in a URI; only we create the file, never
        # SQLite.
        self._uri = _uri_of(self.path)
        self._made = False
        self._opened_last: Identity | None = None
        #: Whether another file has taken the place of ours, and may still be incomplete.
        self._may_be_half = False
        self._gate = gate
        self._on_lost = lost
        self._holds = holds
        self._mutex = threading.Lock()
        self._watch = FileWatch(self.path, path)
        self._connections: list[sqlite3.Connection] = []
        #: A read-only connection that keeps any other from being the last. Closed before all others if the
        #: last one may merge the log, otherwise after them.
        self._anchor: sqlite3.Connection | None = None
        self._merger: Merger | None = None
        #: Set if the file can be read in no other way; then there is no anchor and no merger.
        self._snapshot: Snapshot | None = None
        #: The version of the file's format: how entries are stored in rows, and how rows are found.
        self.format = SCHEMA_VERSION
        self.page_size = 0
        #: How many connections have been opened.
        self.opened = 0
        #: What has happened to the files, until all connections are closed.
        self.change: Change | None = None
        _open_files.add(self)

    def connect(self, *, synchronous: str, patience: float) -> sqlite3.Connection:
        """A connection to the file, which is created if it does not exist. Raises StoreError.

        ``synchronous`` is SQLite's setting; ``patience`` is in seconds, for locks of others.
        """
        with self._mutex, self.translated():
            if self._connections:
                connection = self._open_another(synchronous, patience)
            else:
                connection = self._open_first(synchronous, patience)
            # For statements that write without ``begin``. A weak reference: no garbage collector sees
            # SQLite's references.
            connection.create_function("undisturbed", 0, partial(_is_undisturbed, weakref.ref(self)))
            self._connections.append(connection)
            self.opened += 1
        return connection

    def disconnect(self, connection: sqlite3.Connection) -> None:
        """Close a connection. The last one merges the log, if the file is the one that the log belongs to."""
        with self._mutex:
            if connection not in self._connections:
                return
            last = len(self._connections) == 1
            with contextlib.suppress(StoreError, sqlite3.Error, OSError):
                change = self._watch.changed() if last and self.change is None else None
                if change is not None and change in _NOTICED_LAST:
                    self._notice(change)
                elif change == "gone" and self._merger is not None:
                    self._merger.merge()  # SQLite does not, and the log may have lost its name before
            with opening(self.path):  # whoever opens a first one counts what is open
                self._connections.remove(connection)
                self._close(connection, last=last)

    def _close(self, connection: sqlite3.Connection, *, last: bool) -> None:
        if last:
            self._close_merger()
            if self.change is None:
                self._close_anchor()
        with contextlib.suppress(sqlite3.Error):
            connection.close()
        if last:
            self._close_anchor()
            if self.change is not None:
                put_aside(self._watch, self.change)
                self._may_be_half = self.change in _NOT_MERGED
            self.change = self._snapshot = None
            self._watch.forget()

    def check(self, *, to_write: bool = False) -> None:
        """Raise StoreError if the files are not those that were opened. Then each connection must be closed,
        unless the files are gone and may come back. A lost log is merged first, from its open file.
        ``to_write`` is for callers that write next, and check the names again under SQLite's write lock.
        """
        self.check_snapshot()
        change = self.change or self._watch.changed(names_follow=to_write)
        if change is not None:
            with self._mutex:
                self._refuse(change)

    def is_outdated(self) -> bool:
        """Whether the files could only be read when they were opened, and have been written since or may be
        by now. Then each connection must be closed.
        """
        if self._snapshot is None or self._snapshot.is_current():
            return False
        self.change = self.change or "snapshot"
        return True

    def must_be_reopened(self) -> bool:
        """Whether each connection must be closed, so that the next use opens the files anew: because of
        ``change``, because they are outdated, or because a full disk has space again.
        """
        if self._snapshot is not None and self._snapshot.has_room():
            self.change = self.change or "snapshot"
        return self.change is not None or self.is_outdated()

    def check_snapshot(self) -> None:
        """Raise StoreError if what was just read may be half old and half new."""
        if self.is_outdated():
            raise change_error("snapshot", self.path)

    def begin(self, connection: sqlite3.Connection) -> bool:
        """Begin to write. False if the files were lost since ``check``, which then reports it.

        Whoever notices a lost log merges it under the write lock that this takes. So what is written here is
        merged too, or has not begun. Raises sqlite3.Error.
        """
        connection.execute("BEGIN IMMEDIATE")
        if self.is_undisturbed():
            return True
        connection.execute("ROLLBACK")
        return False

    @contextlib.contextmanager
    def transaction(self, connection: sqlite3.Connection) -> Iterator[None]:
        """A transaction: all or nothing. Raises StoreError if the files were lost just now, and
        sqlite3.Error.
        """
        if not self.begin(connection):
            raise change_error(self.change or self._watch.changed() or "gone", self.path)
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # some errors have rolled back already
                connection.execute("ROLLBACK")
            raise
        self.note_commit()

    def note_commit(self) -> None:
        """Note a commit, on whatever connection."""
        self._watch.note_commit()

    def is_undisturbed(self) -> bool:
        """Whether the files are those that were opened. Call it with SQLite's write lock held."""
        return self._watch.is_undisturbed() or not self.has_changed()

    def has_changed(self) -> bool:
        """Whether ``check`` would raise."""
        return self.change is not None or self._watch.changed() is not None

    def _refuse(self, change: Change) -> NoReturn:
        self._notice(change)
        raise change_error(self.change or change, self.path)

    def _notice(self, change: Change) -> None:
        """Record what has happened to the files, so that all who have one open close it. Raises StoreError if
        a lost log cannot be merged yet; then it stays open.
        """
        if self.change is None and change != "gone":
            if change in {"log", "index"} and self._snapshot is not None:
                change = "snapshot"  # nothing was written that would have to be merged
            elif change in {"log", "index"} and not self._retire():
                change = "superseded"
            elif change == "overwritten" and is_superseded(self._watch, self.path):
                change = "superseded"  # merges of others since then look the same
            self.change = change
            self._on_lost(change not in {"log", "index", "superseded", "snapshot"})

    def _retire(self) -> bool:
        assert self._merger is not None
        with self.translated():
            return self._merger.retire()

    def _open_another(self, synchronous: str, patience: float) -> sqlite3.Connection:
        self._refuse_changed()
        connection: sqlite3.Connection | None = None
        try:
            with opening(self.path):
                connection = self._open_connection(synchronous, patience)
            self._refuse_changed()
        except BaseException as error:
            if connection is not None:
                with opening(self.path):
                    connection.close()
            if isinstance(error, sqlite3.Error):  # possibly because a log was just deleted
                self._refuse_changed()
            raise
        return connection

    def _refuse_changed(self) -> None:
        change = self.change or self._watch.changed()
        if change is not None:
            self._refuse(change)

    def _open_first(self, synchronous: str, patience: float) -> sqlite3.Connection:
        if Path(os.path.realpath(self._given)) != self.path:
            raise StoreError(
                f"cannot use {self._given}: the symlink now leads to another file", hint="restart the program"
            )
        if not self._made:
            self._make()
        if self.path.exists() and not self.path.is_file():
            raise StoreError(f"cannot use {self.path}: it is not a regular file", hint="choose another file")
        if self._may_be_half or self._opened_last not in {None, identity_of(self.path)}:
            self._await_copy()
        if self.path.is_file() and (names := self.path.stat().st_nlink) > 1:
            raise StoreError(
                f"cannot use {self.path}: the file has {names} names (hard links), and programs "
                "that open it by different names would overwrite each other",
                hint="remove the other names, or use a copy of the file",
            )
        put_stale_log_aside(self._watch, self.path, self._gate)
        connection = self._open_at_gate(synchronous, patience)
        self._made, self._opened_last = True, self._watch.main
        return connection

    def _open_at_gate(self, synchronous: str, patience: float) -> sqlite3.Connection:
        """Open the file while no other process opens it or retires a lost log: the note shows the next one
        which log this is. Raises StoreError if another process has a log that is not there.
        """
        deadline = time.monotonic() + MERGE_PATIENCE
        while True:
            with contextlib.ExitStack() as stack:
                if has_notes(self.path):  # otherwise no log was ever lost, and the file may not be ours
                    try:
                        stack.enter_context(self._gate())
                    except TimeoutError:
                        raise
                    except OSError:  # it may be read-only
                        pass
                stack.enter_context(opening(self.path))
                check_stores(self._watch, self.path, [each._watch for each in members_of(_open_files)])  # noqa: SLF001
                if not is_lost_elsewhere(self._watch, self.path):
                    return self._open_or_read(synchronous, patience)
            if time.monotonic() > deadline:
                raise lost_elsewhere_error(self.path)
            time.sleep(0.005)  # another process may just be opening or closing it

    def _open_or_read(self, synchronous: str, patience: float) -> sqlite3.Connection:
        """Open the first connection: a read-only one if the disk has no space for the log's index."""
        try:
            return self._open_together(synchronous, patience)
        except sqlite3.Error as error:
            full = no_room_error(error, self.path) is not None
            if not (full and Snapshot.is_safe(self._watch) and self._is_kept_with_log()):
                raise
            return self._open_snapshot(synchronous, patience, of_full_disk=True)

    def _open_together(self, synchronous: str, patience: float) -> sqlite3.Connection:
        """Open the first connection and the two internal ones, if all are of one file and one log."""
        before, found = identity_of(self.path), self._watch.found()
        holders = self._watch.holders(found[0])
        connection: sqlite3.Connection | None = None
        try:
            if self._is_kept_with_log():
                if Snapshot.is_needed(self._watch, self.path):
                    return self._open_snapshot(synchronous, patience)
                self._anchor = self._open_anchor()
            connection = self._open_connection(synchronous, patience)
            self._anchor = self._anchor or self._open_anchor()
            self._merger = Merger(self._open_beside("rw", timeout=0), self._watch, self.path, self._gate)
            self._watch.remember(before)
            self._check_opened(connection, found, holders)
            note_log(self._watch, self.path)
        except BaseException:
            self._close_merger()
            self._close_anchor()
            if connection is not None:
                connection.close()  # as the last one: it merges a log that was deleted just now
            self._watch.forget()
            remove_made(self._watch, self.path, found)
            raise
        return connection

    def _open_snapshot(
        self, synchronous: str, patience: float, *, of_full_disk: bool = False
    ) -> sqlite3.Connection:
        before, connection = identity_of(self.path), None
        try:
            self._snapshot = Snapshot(self._watch, self.path, of_full_disk=of_full_disk)
            connection = self._open_connection(synchronous, patience)
            self._watch.remember(before)
        except BaseException:
            if connection is not None:
                connection.close()
            self._snapshot = None
            raise
        return connection

    def _is_kept_with_log(self) -> bool:
        return is_kept_with_log(self._watch, self.path)

    def _await_copy(self) -> None:
        """Wait for a copy into the file's place to be complete: half of one would look damaged, and an empty
        file would get tables. Raises StoreError if it is not.
        """
        before = status_of(self.path)
        time.sleep(_STILL)
        now = status_of(self.path)
        if now is None:
            raise change_error("gone", self.path)
        still = before is not None and (before.st_mtime_ns, before.st_size) == (now.st_mtime_ns, now.st_size)
        if not still or not now.st_size:
            raise StoreError(
                f"cannot use {self.path}: {'it is empty' if still else 'it is being overwritten right now'}",
                hint="put a complete database there, or restart the program",
            )
        self._may_be_half = False

    def _check_opened(
        self, connection: sqlite3.Connection, found: Sequence[Identity | None], holders: int
    ) -> None:
        """Raise StoreError if another process still uses a lost log, if the log or its index was lost or
        replaced while the first connections were opened, or if the file lacks what it had when it was open
        before.
        """
        if was_lost_elsewhere(self._watch, self.path, found):
            raise lost_elsewhere_error(self.path)
        if is_logged(connection) and (change := self._watch.unopened(holders + 3)) is not None:
            raise change_error(change, self.path)
        if self._made and not self._holds(connection):
            self._on_lost(True)
            raise change_error("replaced", self.path)

    def note_merge(self) -> None:
        """Remember the state of the database, since this process has just merged its log."""
        with self._mutex:
            if self._connections:
                self._watch.changed()

    def _open_connection(self, synchronous: str, patience: float) -> sqlite3.Connection:
        connection = self._open_plain("rw", OPEN_PATIENCE)
        try:
            self.format = prepare(connection, self.path)
            self.page_size = connection.execute("PRAGMA page_size").fetchone()[0]
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_LIMIT}")
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            connection.execute(f"PRAGMA busy_timeout = {int(patience * 1000)}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _open_anchor(self) -> sqlite3.Connection:
        """The read-only connection. It is opened before all others, since it cannot play back a journal that
        somebody has just put there, and while it is open nobody can.
        """
        for _ in range(_JOURNALS):
            try:
                return self._open_beside("ro")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
                    raise
        return self._open_beside("ro")

    def _open_beside(self, mode: str, timeout: float | None = None) -> sqlite3.Connection:
        """An internal connection; it waits ``timeout`` seconds for locks."""
        connection = self._open_plain(mode, OPEN_PATIENCE if timeout is None else timeout)
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    def _open_plain(self, mode: str, timeout: float) -> sqlite3.Connection:
        put_stray_journal_aside(self._watch, self.path)
        snapshot = self._snapshot
        connection = sqlite3.connect(
            f"{self._uri}?mode={mode if snapshot is None else f'ro&{snapshot.options}'}",
            uri=True,
            timeout=timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        if snapshot is not None:
            connection.execute(snapshot.first_statement)
        return connection

    def _close_anchor(self) -> None:
        anchor, self._anchor = self._anchor, None
        if anchor is not None:
            with contextlib.suppress(sqlite3.Error):
                anchor.close()

    def _close_merger(self) -> None:
        merger, self._merger = self._merger, None
        if merger is not None:
            merger.close()

    @contextlib.contextmanager
    def compact_copy(self, connection: sqlite3.Connection) -> Iterator[Path]:
        """A durable copy of the file without its free space. It is removed afterwards unless it has been
        renamed. Raises StoreError, sqlite3.Error.
        """
        copy = self.path.with_name(self.path.name + COPY)
        try:
            with self.translated():
                _remove_copy(copy)  # left by a process that was killed
                old, descriptor = self.path.stat(), os.open(copy, _NEW, 0o600)
                try:
                    new = os.fstat(descriptor)
                    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
                        os.fchown(descriptor, old.st_uid, old.st_gid)
                    connection.execute("VACUUM INTO ?", (_uri_of(copy),))
                    with contextlib.closing(sqlite3.connect(copy)) as copied:
                        copied.execute("PRAGMA journal_mode = WAL").fetchall()
                    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            yield copy
        finally:
            _remove_copy(copy)

    def replace_by(self, copy: Path, connection: sqlite3.Connection, version: int) -> bool:
        """Close the connection and replace the file by a copy that was made when ``data_version`` gave
        ``version``. False if the file is open elsewhere or was written to since. Call it at the gate, where
        no other process opens the file; nor can this one before the copy is in place. Raises StoreError.
        """
        with self._mutex, self.translated(), opening(self.path):
            if self._connections != [connection] or data_version(connection) != version:
                return False
            if is_locked_elsewhere(self._watch.descriptor(self._watch.main)):
                return False
            self._connections.clear()
            self._close(connection, last=True)
            if self._watch.holders(identity_of(self.path)) or self._watch.found() != (None, None):
                return False
            copy.replace(self.path)
            self._opened_last = identity_of(self.path)
            sync_folder(self.path.parent)
        return True

    @property
    def identity(self) -> Identity | None:
        """Which file is open; None if none is."""
        return self._watch.main

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Turn errors of SQLite and of the system into StoreError."""
        try:
            yield
        except sqlite3.Error as error:
            raise self.error(error) from error
        except UnicodeDecodeError as error:  # SQLite's message contains damaged bytes of the file
            raise damaged_error(self.path) from error
        except OSError as error:
            raise store_error(error, self.path) from error

    def may_be_written(self) -> bool:
        """Whether this process may write to the file."""
        return os.access(self.path, os.W_OK, effective_ids=True)

    def error(self, error: sqlite3.Error) -> StoreError:
        """The typed error that says what a SQLite error means and what to do about it."""
        if self.is_outdated():  # what is half old and half new looks damaged
            return change_error("snapshot", self.path)
        if self._snapshot is not None and self._snapshot.of_full_disk and is_read_only(error):
            self.change = self.change or "snapshot"  # by the next use there may be room
            return full_error(self.path)
        return sqlite_error(error, self.path)

    def _make(self) -> None:
        """Create the file, and its folder if missing, for their owner alone."""
        make_private(self.path.parent)
        # Opened only if it is new: closing any descriptor of a file drops the locks that SQLite holds on it
        # in this process.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.path, _NEW, 0o600))


def _uri_of(path: Path) -> str:
    """The URI of a file, whose name need not be UTF-8."""
    return f"file:{quote(os.fsencode(path))}"


def _remove_copy(copy: Path) -> None:
    for end in "", "-wal", "-shm", "-journal":
        Path(f"{copy}{end}").unlink(missing_ok=True)


_open_files: weakref.WeakSet[SQLiteFile] = weakref.WeakSet()


#: In a forked child: the databases that its parent had open.
_files_of_parent: set[Identity] = set()


def is_of_parent(path: Path) -> bool:
    """Whether SQLite takes the parent's locks on a file for its own, since the parent had it open at the
    fork: what a forked child wrote there would be lost, or worse.
    """
    return bool(_files_of_parent) and identity_of(path) in _files_of_parent


def _after_fork_in_child() -> None:
    for file in list(_open_files):
        let_be(file)  # closing a connection would merge the log, and delete it
        if file.identity is not None:
            _files_of_parent.add(file.identity)


os.register_at_fork(after_in_child=_after_fork_in_child)


def _is_undisturbed(file: weakref.ref[SQLiteFile]) -> bool:
    held = file()
    return held is not None and held.is_undisturbed()
