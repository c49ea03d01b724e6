"""``Lease``: allows one consolidation of a memory folder at a time, over all pods and processes."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path

import msgspec

from actors.memory.atomic_files import read_text, write_whole
from actors.runtime.user_folders import make_private
from actors.sessions.lock import WriterLock
from protocol.text import UNDECODABLE


class Holding(msgspec.Struct, frozen=True):
    """Who consolidates: process, pod and start (seconds since the epoch), and which staged files."""

    writer: str
    pid: int
    host: str
    pod: str
    since: float
    consumed: tuple[str, ...] = ()


class Lease:
    """The right to consolidate a folder. The kernel frees it however the process ends, so the next one can
    simply take it.
    """

    def __init__(self, lock: WriterLock, path: Path, holding: Holding) -> None:
        self._lock = lock
        self._path = path
        self.holding = holding

    @classmethod
    def acquire(cls, folder: Path, pod: str) -> Lease | None:
        """Take the lease; None if a living process holds it. Raises OSError."""
        make_private(folder)
        lock, path = WriterLock(folder / "holders"), folder / "lease.json"
        make_private(lock.folder)
        with lock.gate():
            holder = _read(path)
            if holder is not None and lock.alive(holder.writer) is not None:
                return None
            lease = cls(lock, path, Holding(lock.id, os.getpid(), socket.gethostname(), pod, time.time()))
            try:
                lease.note(())
            except BaseException:
                lock.release()
                raise
            return lease

    def note(self, consumed: tuple[str, ...]) -> None:
        """Record which staged files are being worked in. Raises OSError."""
        self.holding = msgspec.structs.replace(self.holding, consumed=consumed)
        write_whole(self._path, msgspec.json.encode(self.holding).decode())

    def release(self) -> None:
        """Release the lease. Idempotent."""
        if self._lock.known is None:
            return
        with contextlib.suppress(OSError), self._lock.gate():
            self._path.unlink(missing_ok=True)
        self._lock.release()


def _read(path: Path) -> Holding | None:
    try:
        text = read_text(path)
        return None if text is None else msgspec.json.decode(text, type=Holding)
    except UNDECODABLE:  # nobody knows whose it was
        return None
