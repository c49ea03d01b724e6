"""Carries out the writes of a JSON-lines store: batches at the end of files, each whole or not at all."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from actors.sessions.committer import Job
from actors.sessions.disk import opened_folder
from actors.sessions.jsonl.claims import Claims, Clock, Stamp
from actors.sessions.jsonl.files import Files, draft_file, none_is_whole, read_ends, write_all
from actors.sessions.jsonl.lines import batch_lines, header_line
from actors.sessions.store import check_follows, in_use
from protocol.entries import GENESIS, Head, Parent, StoredEntry
from protocol.errors import HeadConflict, SessionError


class Held:
    """A session that this store may write to: its file, its claim and its durable end.

    ``end`` is the length of what is durable. If the file is not ``clean``, something refused may be after
    that until the next append has cut it off. ``file`` is its inode and time. ``queued`` and ``finished``
    count jobs of the writer thread, the first on the caller's thread, the second on the writer's.
    """

    __slots__ = (
        "clean",
        "end",
        "file",
        "finished",
        "generation",
        "head",
        "name",
        "path",
        "pod",
        "queued",
        "session_id",
        "since",
        "stamp",
    )

    def __init__(self, session_id: str, path: Path, pod: str) -> None:
        self.session_id = session_id
        self.path = path
        self.name = path.name
        self.pod = pod
        self.since = time.time()
        self.generation = 1
        self.stamp: Stamp | None = None
        self.head = Head(0, GENESIS)
        self.end = 0
        self.file = (0, 0)
        self.clean = True
        self.queued = self.finished = 0


class Append(Job):
    """Adds entries to a held session."""

    __slots__ = ("after", "batch", "begin", "held")

    def __init__(self, held: Held, after: Head, batch: Sequence[StoredEntry]) -> None:
        super().__init__(sum([len(entry.body) for entry in batch]))
        self.held = held
        self.after = after
        self.batch = batch
        self.begin = 0

    def finish(self, error: BaseException | None = None) -> None:
        self.held.finished += 1
        super().finish(error)

    def perform(self, claims: Claims) -> int | None:
        """Write, and return the descriptor that must be synced, or None.

        Raises OSError, HeadConflict, and SessionInUse if the claim was taken over.
        """
        held = self.held
        if claims.stamp(held.name) != held.stamp:
            raise _lost(held, claims)
        check_follows(held.session_id, held.head, self.after, self.batch)
        descriptor = claims.files.open(held.path, os.O_WRONLY | os.O_APPEND)
        try:
            _check_end(held, claims.files, descriptor)
            self._write(claims.files, claims.clock, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _write(self, files: Files, clock: Clock, descriptor: int) -> None:
        held, data = self.held, batch_lines(self.batch)
        self.begin, at = held.end, clock.tick()  # the kernel's own stamps are milliseconds apart
        held.clean = False
        write_all(files, descriptor, data, held.end)
        _check_place(held, files, descriptor, len(data))
        os.utime(descriptor, ns=(at, at))
        last = self.batch[-1]
        held.head, held.end, held.clean = Head(last.seq, last.hash), held.end + len(data), True
        held.file = (held.file[0], at)

    def undo(self, files: Files, descriptor: int) -> None:
        """Cut off what was written but could not be synced."""
        held = self.held
        held.head, held.end, held.clean = self.after, self.begin, False
        with contextlib.suppress(OSError):  # the next append tries again
            files.truncate(descriptor, self.begin)


class Create(Append):
    """Creates a session with its first entries.

    ``draft`` names a file on the same disk, ``mark`` the empty file that points to the session under its
    parent.
    """

    __slots__ = ("claim", "draft", "mark", "parent", "sync")

    def __init__(
        self,
        held: Held,
        parent: Parent | None,
        batch: Sequence[StoredEntry],
        *,
        claim: bool,
        draft: Path,
        mark: Path | None,
        sync: bool,
    ) -> None:
        super().__init__(held, Head(batch[0].seq - 1, GENESIS), batch)
        self.parent = parent
        self.claim = claim
        self.draft = draft
        self.mark = mark
        self.sync = sync

    def perform(self, claims: Claims) -> None:
        held = self.held
        header = header_line(held.session_id, held.pod, time.time(), self.parent)
        data, at = header + batch_lines(self.batch), claims.clock.tick()
        if self.mark is not None:  # first, since a mark without a session is ignored
            self.mark.parent.mkdir(mode=0o700, exist_ok=True)
            self.mark.touch(mode=0o600)
            os.utime(self.mark, ns=(at, at))  # their order is that of the children
        with opened_folder(held.path.parent) as folder:
            self._link(claims, data, at)
            try:
                if self.sync:
                    self._sync_names(claims.files, folder)
                held.file = _stamp(os.stat(held.name, dir_fd=folder))
            except OSError:  # if it was moved away, say: what was refused must not be found there later
                with contextlib.suppress(OSError):
                    os.unlink(held.name, dir_fd=folder)
                raise
        last = self.batch[-1]
        held.head, held.end = Head(last.seq, last.hash), len(data)

    def _link(self, claims: Claims, data: bytes, at: int) -> None:
        """Give the session its name, once all of it is in the file."""
        held = self.held
        # The draft is synced before the gate, since other processes wait there.
        drawn = draft_file(self.draft, data, at=at, sync=self.sync, files=claims.files)
        with drawn, claims.lock.gate():
            if held.path.exists():
                raise HeadConflict(f"session {held.session_id} already exists")
            if self.claim:
                _take(held, claims)
            claims.files.link(self.draft, held.path)

    def _sync_names(self, files: Files, folder: int) -> None:
        """Make the name durable."""
        files.sync_folder(folder)
        if self.mark is not None:
            with opened_folder(self.mark.parent) as marks:
                files.sync_folder(marks)


class Release(Append):
    """Ends a claim."""

    __slots__ = ()

    def __init__(self, held: Held) -> None:
        super().__init__(held, held.head, ())

    def perform(self, claims: Claims) -> None:
        held = self.held
        if held.stamp is not None:
            if not held.clean:
                self._cut_off(claims)
            claims.release(held.name, held.stamp)

    def _cut_off(self, claims: Claims) -> None:
        """Cut off what was refused; if the disk does not allow that, the next claim does."""
        held = self.held
        with contextlib.suppress(OSError, SessionError):
            descriptor = claims.files.open(held.path, os.O_WRONLY | os.O_APPEND)
            try:
                if claims.stamp(held.name) == held.stamp:
                    _check_end(held, claims.files, descriptor)
            finally:
                os.close(descriptor)


def claim(held: Held, claims: Claims) -> int:
    """Claim an existing session, and cut off what is torn. Returns the number of torn bytes.

    Raises OSError, and SessionInUse if somebody else holds it; then it is not claimed.
    """
    try:
        with claims.lock.gate():
            held.path.stat()
            _take(held, claims)
            ends = read_ends(held.path)
            if ends.head is None:
                raise none_is_whole(held.session_id)
            if ends.size > ends.sound:
                os.truncate(held.path, ends.sound)
    except (OSError, SessionError):
        if held.stamp is not None:
            with contextlib.suppress(OSError):
                claims.release(held.name, held.stamp)
        raise
    held.head, held.end, held.file = ends.head, ends.sound, _stamp(held.path.stat())
    return ends.size - ends.sound


def _take(held: Held, claims: Claims) -> None:
    held.generation, held.stamp = claims.take(held.name, held.session_id, held.pod, held.since)


def _check_end(held: Held, files: Files, descriptor: int) -> None:
    """Raise HeadConflict unless the file ends where we left it; what was refused is cut off first.

    A file that replaced it, or was copied over it, has another length or another time.
    """
    status = os.fstat(descriptor)
    size = status.st_size
    if not held.clean and size >= held.end and read_ends(held.path, held.end).head == held.head:
        files.truncate(descriptor, held.end)
        size, held.clean = held.end, True
    elif _stamp(status) != held.file and read_ends(held.path).head == held.head:
        held.file = _stamp(status)  # copied or touched, but the same
    elif _stamp(status) != held.file:
        size = -1
    if size != held.end:
        raise HeadConflict(f"session {held.session_id} was written by another program")


def _check_place(held: Held, files: Files, descriptor: int, length: int) -> None:
    """Raise HeadConflict unless the bytes just written follow the old end. If another content was copied over
    the file since the last check, they are after that, and are cut off again.
    """
    end = os.lseek(descriptor, 0, os.SEEK_CUR)
    if end != held.end + length:
        with contextlib.suppress(OSError):
            files.truncate(descriptor, end - length)
        raise HeadConflict(f"session {held.session_id} was overwritten by another program")


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_ino, status.st_mtime_ns


def _lost(held: Held, claims: Claims) -> SessionError:
    held.path.stat()  # raises if the whole store is gone
    holder = claims.holder(held.name)
    if holder is not None:
        return in_use(held.session_id, holder)
    return HeadConflict(f"session {held.session_id} was taken over in the meantime")
