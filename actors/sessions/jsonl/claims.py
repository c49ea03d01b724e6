"""``Claims``: which process holds which session of a JSON-lines store, in a small file for each session ever
claimed.

A claim is written in place, under the gate of the store's lock. By the file's time a holder sees with one
system call whether the claim is still its own.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

from actors.sessions.disk import read_file
from actors.sessions.jsonl.files import FILES, Files, put_all
from actors.sessions.lock import WriterLock
from actors.sessions.store import Holder, in_use
from protocol.text import UNDECODABLE

#: Identifies one claim; the claim that replaces it has another.
Stamp = tuple[int, int]


# The greatest length of a claim, so that one write replaces the one before.
_WIDTH = 256


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """The content of a claim file; without a ``writer`` nobody holds the session."""

    generation: int
    writer: str | None = None
    pod: str = ""
    since: float = 0.0


class Clock:
    """Gives each write of a store a later time than the one before, even if the system's clock was set back,
    and across processes: a file keeps the last time. So the files' times give their order.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = 0

    def tick(self) -> int:
        """The current time, or the next after the last write, in nanoseconds. Raises OSError."""
        try:
            kept = os.stat(self._path).st_mtime_ns  # noqa: PTH116 - each append calls it
        except FileNotFoundError:
            kept = 0
            self._path.touch(mode=0o600)
        self._last = max(time.time_ns(), kept + 1, self._last + 1)
        os.utime(self._path, ns=(self._last, self._last))
        return self._last


class Claims:
    """The claims of one store. Raises OSError, and SessionInUse if somebody else holds a session."""

    def __init__(self, folder: Path, lock: WriterLock, files: Files = FILES) -> None:
        self._folder = folder
        self.lock = lock
        #: How the store's files are changed, and the times of their changes.
        self.files = files
        self.clock = Clock(folder.with_name("clock"))

    def take(self, name: str, session_id: str, pod: str, since: float) -> tuple[int, Stamp]:
        """Claim a session, at the gate. Returns the generation, and the stamp of the claim."""
        old = self._read(name)
        if (holder := self._living(old)) is not None:
            raise in_use(session_id, holder)
        new = Mark(old.generation + 1, self.lock.id, pod, since)
        return new.generation, self._write(name, new)

    def release(self, name: str, stamp: Stamp) -> None:
        """Release a claim, if it is still the one with that stamp."""
        with self.lock.gate():
            if self.stamp(name) == stamp:
                self._write(name, Mark(self._read(name).generation))

    def remove(self, name: str) -> None:
        """Remove the claims on a deleted session."""
        (self._folder / name).unlink(missing_ok=True)

    def holder(self, name: str) -> Holder | None:
        """Who holds a session, if that is another writer and lives."""
        return self._living(self._read(name))

    def stamp(self, name: str) -> Stamp | None:
        """The stamp of the current claim; None if there is none."""
        try:
            return _stamp(os.stat(self._folder / name))  # noqa: PTH116 - each append calls it
        except FileNotFoundError:
            return None

    def _living(self, claim: Mark) -> Holder | None:
        if claim.writer is None or claim.writer == self.lock.known:
            return None
        writer = self.lock.alive(claim.writer)
        return None if writer is None else Holder(writer.pid, writer.host, claim.since, claim.pod)

    def _read(self, name: str) -> Mark:
        try:
            return msgspec.json.decode(read_file(self._folder / name), type=Mark)
        except (FileNotFoundError, *UNDECODABLE):  # none yet, or cut off by a power cut
            return Mark(0)

    def _write(self, name: str, mark: Mark) -> Stamp:
        data = msgspec.json.encode(mark).ljust(_WIDTH)
        descriptor = self.files.open(self._folder / name, os.O_WRONLY | os.O_CREAT)
        try:
            put_all(self.files, descriptor, data)
            os.ftruncate(descriptor, len(data))
            now = time.time_ns()  # the kernel's own stamps are milliseconds apart
            os.utime(descriptor, ns=(now, now))
            return _stamp(os.fstat(descriptor))
        finally:
            os.close(descriptor)


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_ino, status.st_mtime_ns
