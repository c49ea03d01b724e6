"""``WriterLock``: shows other processes that this one uses a store, and has one at a time change the store's
claims.

A writer's file is ``<folder>/<id>.lock``, locked by ``flock`` as long as its process lives. The kernel frees
the lock however the process ends, so no heartbeat is needed to know whether a writer lives. The file names
the process, for people and error messages. Files of dead writers are removed by whoever finds them.

The file ``<folder>/gate`` is locked for moments only, by the process that changes claims or the store's
files.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import msgspec

from actors.sessions.disk import lock, read_file
from protocol.text import UNDECODABLE

_SUFFIX = ".lock"
#: Seconds between two tries to take a locked gate.
_NAP = 0.001


class Writer(msgspec.Struct, frozen=True):
    """A process that writes to a store, and since when (seconds since the epoch)."""

    pid: int
    host: str
    since: float


class WriterLock:
    """The lock of this process on a store, taken when ``id`` is first read.

    Raises OSError if the folder or the file cannot be created. A forked child does not become the writer: its
    copy of the descriptor is closed, so that the lock ends with the parent.
    """

    #: Seconds to wait for the gate. It is held for microseconds, but for longer while free space is returned
    #: to the disk, or by a process that was stopped while it held it.
    patience = 5.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._gate = os.fspath(folder / "gate")  # made once, since each commit of a thread needs it
        self._id: str | None = None
        self._descriptor = -1
        #: Whether this is a forked child's copy, which must not be used.
        self.inherited = False
        _open_locks.add(self)

    @property
    def id(self) -> str:
        """The id of this writer in the store's records."""
        if self._id is None or not self._is_there():
            self._take()
        assert self._id is not None
        return self._id

    @property
    def known(self) -> str | None:
        """The id of this writer in the store's records; None if nobody has asked for it yet."""
        return self._id

    @property
    def descriptor(self) -> int:
        """The descriptor that holds the lock; whoever inherits it holds the lock too, as long as it is open.
        It changes if the file has to be made again.
        """
        _ = self.id
        return self._descriptor

    def _is_there(self) -> bool:
        """Whether others still find this writer's file: its folder may have been deleted or replaced."""
        assert self._id is not None
        try:
            return os.path.samestat((self.folder / (self._id + _SUFFIX)).stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def _take(self) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._remove_dead()
        descriptor = -1
        while descriptor < 0:
            name = self._id or os.urandom(8).hex()  # what it holds under its name it keeps
            descriptor = self._make_file(name)
        self.abandon()
        self._id, self._descriptor = name, descriptor

    def _make_file(self, name: str) -> int:
        """Create and lock a new file. Returns its descriptor, or -1 if this must be tried again."""
        path = self.folder / (name + _SUFFIX)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            lock(descriptor, fcntl.LOCK_EX)
            me = Writer(os.getpid(), socket.gethostname(), time.time())
            os.write(descriptor, msgspec.json.encode(me))
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # before it was locked, somebody took it for a dead writer's
        return -1

    def other(self) -> Writer | None:
        """Another living writer, if there is one."""
        for path in self.folder.glob("*" + _SUFFIX):
            if path.stem != self._id and (writer := self.alive(path.stem)) is not None:
                return writer
        return None

    def alive(self, writer_id: str) -> Writer | None:
        """The writer with that id if its process lives, otherwise None."""
        path = self.folder / (writer_id + _SUFFIX)
        if writer_id == self._id:
            return _read(path)
        with _unlocked(path) as unlocked:
            return None if unlocked else _read(path)

    @contextlib.contextmanager
    def gate(self) -> Iterator[None]:
        """Hold the gate: only one process at a time changes who holds what, for microseconds. Raises OSError
        if another process holds it for seconds.
        """
        with self._at_gate(fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield

    def pass_gate(self) -> None:
        """Let processes that wait for the gate go first. Called by those who write without a pause."""
        with contextlib.suppress(OSError), self._at_gate(fcntl.LOCK_SH | fcntl.LOCK_NB):
            pass

    @contextlib.contextmanager
    def _at_gate(self, operation: int) -> Iterator[None]:
        descriptor = os.open(self._gate, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                lock(descriptor, operation)
            except BlockingIOError:
                self._wait_for_gate(descriptor, operation)
            try:
                yield
            finally:
                # Explicitly, since a child that another thread forks meanwhile has a copy of the descriptor.
                lock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)

    def _wait_for_gate(self, descriptor: int, operation: int) -> None:
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            time.sleep(_NAP)
            with contextlib.suppress(BlockingIOError):
                return lock(descriptor, operation)
        raise OSError(errno.ETIMEDOUT, f"another process has held its lock for {self.patience:g} seconds")

    def _remove_dead(self) -> None:
        for path in self.folder.glob("*" + _SUFFIX):
            with (
                contextlib.suppress(OSError),
                _unlocked(path) as unlocked,
            ):  # another user's, or removed already
                if unlocked:
                    path.unlink()

    def release(self) -> None:
        """Release the lock: everything that this writer held is free. Idempotent."""
        if self._id is not None and not self.inherited:
            with contextlib.suppress(OSError):  # what is left is a dead writer's
                (self.folder / (self._id + _SUFFIX)).unlink()
            self._id = None
            self.abandon()

    def __del__(self) -> None:
        """Release the lock of a store that was dropped without being closed."""
        with contextlib.suppress(Exception):  # the interpreter may be ending
            if self._descriptor >= 0:
                self.release()

    def abandon(self) -> None:
        """Close this process's copy of the descriptor and leave the lock itself alone."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@contextlib.contextmanager
def _unlocked(path: Path) -> Iterator[bool]:
    """Whether nobody has locked a writer's file, or there is none. Within the context nobody comes to hold
    it: a writer that is just making the file notices what became of it. Raises OSError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, ValueError):  # ValueError if no file can have that name
        yield True
        return
    try:
        unlocked = True
        try:
            # Shared, so that two who ask at once do not take each other for the holder.
            lock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            unlocked = False
        yield unlocked
    finally:
        os.close(descriptor)


def _read(path: Path) -> Writer:
    try:
        return msgspec.json.decode(read_file(path), type=Writer)
    except (OSError, *UNDECODABLE):  # just removed, or cut off by a full disk
        return Writer(0, "an unknown host", 0.0)


_open_locks: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for each in _open_locks:
        each.inherited = True
        with contextlib.suppress(OSError):
            each.abandon()


os.register_at_fork(after_in_child=_after_fork_in_child)
