"""The writer lock of a store: one file per process and store, locked for as long as the process lives.

A writer's file is ``<folder>/<id>.lock``; its lock (``flock``) is freed by the kernel however the
process ends, so whether a writer lives is a question to the kernel and needs no heartbeat. The file
says which process it is, for people and for error messages. Files of dead writers are removed by
whoever comes across them.
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
#: Seconds between two looks at a gate that is locked.
_NAP = 0.001


class Writer(msgspec.Struct, frozen=True):
    """A process that writes to a store, and since when (seconds since the epoch)."""

    pid: int
    host: str
    since: float


class WriterLock:
    """The lock that this process has on a store; it is taken when ``id`` is first asked for.

    Raises OSError where the folder or the file cannot be made. A forked child does not inherit the
    writer's place: its copy of the descriptor is closed, so that the lock ends with the parent.
    """

    #: Seconds that the gate is waited for: it is held for microseconds, but while space is given back to the
    #: disk, or by a process that was stopped in that very moment.
    patience = 5.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._gate = os.fspath(folder / "gate")  # made once, since each commit of a thread asks for it
        self._id: str | None = None
        self._descriptor = -1
        #: Whether this is a forked child's copy, which must not be used.
        self.inherited = False
        _open_locks.add(self)

    @property
    def id(self) -> str:
        """What this writer is called in the store's records."""
        if self._id is None or not self._is_there():
            self._take()
        assert self._id is not None
        return self._id

    @property
    def known(self) -> str | None:
        """What this writer is called in the store's records; None where nobody has asked for it yet."""
        return self._id

    @property
    def descriptor(self) -> int:
        """What has the lock: whoever inherits it has it as well, for as long as that is open. It is another
        once the file had to be made anew.
        """
        _ = self.id
        return self._descriptor

    def _is_there(self) -> bool:
        """Whether others still find this writer's file: the folder may have been deleted or made anew."""
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
            name = self._id or os.urandom(8).hex()  # what it held under its name it holds on to
            descriptor = self._make_file(name)
        self.abandon()
        self._id, self._descriptor = name, descriptor

    def _make_file(self, name: str) -> int:
        """The descriptor of a new file, locked; -1 where it is to be tried again."""
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
        os.close(descriptor)  # between making and locking it, somebody took the file for a dead writer's
        return -1

    def other(self) -> Writer | None:
        """Another writer that lives, if there is one."""
        for path in self.folder.glob("*" + _SUFFIX):
            if path.stem != self._id and (writer := self.alive(path.stem)) is not None:
                return writer
        return None

    def alive(self, writer_id: str) -> Writer | None:
        """The writer of that id if its process lives, else None."""
        path = self.folder / (writer_id + _SUFFIX)
        if writer_id == self._id:
            return _read(path)
        with _unlocked(path) as unlocked:
            return None if unlocked else _read(path)

    @contextlib.contextmanager
    def gate(self) -> Iterator[None]:
        """One at a time, over all processes, changes who holds what; for microseconds each. Raises OSError
        where another process does so for seconds.
        """
        with self._at_gate(fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield

    def pass_gate(self) -> None:
        """Let go first who changes who holds what; called by those who write without a pause."""
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
                # Said, since a child that another thread forks meanwhile has a copy of the descriptor.
                lock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)

    def _wait_for_gate(self, descriptor: int, operation: int) -> None:
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            time.sleep(_NAP)
            with contextlib.suppress(BlockingIOError):
                return lock(descriptor, operation)
        raise OSError(errno.ETIMEDOUT, f"another process has kept it locked for {self.patience:g} seconds")

    def _remove_dead(self) -> None:
        for path in self.folder.glob("*" + _SUFFIX):
            with (
                contextlib.suppress(OSError),
                _unlocked(path) as unlocked,
            ):  # another user's, or somebody was faster
                if unlocked:
                    path.unlink()

    def release(self) -> None:
        """Let go: all that this writer held is free. Idempotent."""
        if self._id is not None and not self.inherited:
            with contextlib.suppress(OSError):  # what is left is a dead writer's
                (self.folder / (self._id + _SUFFIX)).unlink()
            self._id = None
            self.abandon()

    def __del__(self) -> None:
        """A store that was forgotten instead of closed holds nothing."""
        with contextlib.suppress(Exception):  # the interpreter may be ending
            if self._descriptor >= 0:
                self.release()

    def abandon(self) -> None:
        """Close this process's copy of the descriptor, without a word to others."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@contextlib.contextmanager
def _unlocked(path: Path) -> Iterator[bool]:
    """Whether nobody has locked a writer's file, or there is none; as long as that lasts nobody comes to: who
    is just making it finds out then what became of it. Raises OSError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, ValueError):  # the second for what no file can be called
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
    except (OSError, *UNDECODABLE):  # it goes away this moment, or was cut by a full disk
        return Writer(0, "an unknown host", 0.0)


_open_locks: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for each in _open_locks:
        each.inherited = True
        with contextlib.suppress(OSError):
            each.abandon()


os.register_at_fork(after_in_child=_after_fork_in_child)
