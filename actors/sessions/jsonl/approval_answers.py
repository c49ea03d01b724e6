"""Keeps answers to calls that wait for approval, a line each, in a file of a JSON-lines store."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from actors.sessions.disk import read_file, sync_folder
from actors.sessions.jsonl.files import Files, opened, put_all, write_all
from actors.sessions.lock import WriterLock
from protocol.approval import ApprovalAnswer
from protocol.text import UNDECODABLE

#: Bytes before a position that show whether the file is still the same.
_BEFORE = 128


class _Mark(Struct, frozen=True):
    """How far the file was read: its state then, the position, and the bytes before that, since a new file
    may reuse an older one's inode.
    """

    state: tuple[int, int, int]
    place: int
    before: bytes


_NOWHERE = _Mark((0, 0, 0), 0, b"")


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


class AnswersFile:
    """The file of all answers; it is changed under the store's gate. All methods raise OSError, and
    StoreError if something else is in its place.
    """

    def __init__(self, path: Path, lock: WriterLock, files: Files, *, sync: bool) -> None:
        self._path = path
        self._lock = lock
        self._files = files
        self._sync = sync

    def put(self, answer: ApprovalAnswer) -> bool:
        """Add an answer, synced if the store is so configured. False if there is one already."""
        with self._lock.gate(), self._opened() as descriptor:
            data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
            sound = data.rfind(b"\n") + 1
            if any(_is_to(answer, other) for other in _answers(data[:sound], [answer.approval_id])):
                return False
            if sound < len(data):  # left by a process that died while writing
                self._files.truncate(descriptor, sound)
            write_all(self._files, descriptor, msgspec.json.encode(answer) + b"\n", sound)
            if self._sync:
                self._files.sync(descriptor)
                sync_folder(self._path.parent)
        return True

    def among(self, approval_ids: Collection[str]) -> list[ApprovalAnswer]:
        """The answers to these approvals."""
        try:
            data = read_file(self._path)
        except FileNotFoundError:
            return []
        return list(_answers(data, approval_ids))

    def since(self, mark: object) -> tuple[object, list[ApprovalAnswer]]:
        """The answers after ``mark``, and the current mark; with None only the mark."""
        known = mark if isinstance(mark, _Mark) else _NOWHERE
        try:
            if mark is not None and _state(self._path.stat()) == known.state:
                return known, []
            with opened(self._path) as file:
                state = _state(os.fstat(file.fileno()))
                file.seek(known.place - len(known.before))
                data, place = file.read(), known.place
                if data.startswith(known.before):
                    data = data[len(known.before) :]
                else:  # another file
                    file.seek(0)
                    data, place = file.read(), 0
        except FileNotFoundError:
            return _NOWHERE, []
        data = data[: data.rfind(b"\n") + 1]
        now = _Mark(state, place + len(data), ((known.before if place else b"") + data)[-_BEFORE:])
        return now, [] if mark is None else list(_answers(data))

    def forget(self, session_ids: Collection[str]) -> None:
        """Remove the answers of these sessions; the caller holds the gate."""
        try:
            data = read_file(self._path)
        except FileNotFoundError:
            return
        kept = [line for line in data.splitlines(keepends=True) if not _is_of(session_ids, line)]
        if len(b"".join(kept)) == len(data):
            return
        draft = self._path.with_suffix(".draft")
        descriptor = self._files.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            put_all(self._files, descriptor, b"".join(kept))
            if self._sync:
                self._files.sync(descriptor)
        finally:
            os.close(descriptor)
        draft.replace(self._path)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        descriptor = self._files.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _answers(data: bytes, approval_ids: Collection[str] | None = None) -> Iterator[ApprovalAnswer]:
    """The answers on complete lines; damaged ones are skipped."""
    written = None if approval_ids is None else [msgspec.json.encode(each) for each in approval_ids]
    if written is not None and not any(each in data for each in written):
        return  # nearly always
    for line in data.splitlines():
        if written is not None and not any(each in line for each in written):
            continue
        with contextlib.suppress(*UNDECODABLE):
            answer = msgspec.json.decode(line, type=ApprovalAnswer)
            if approval_ids is None or answer.approval_id in approval_ids:
                yield answer


def _is_to(answer: ApprovalAnswer, other: ApprovalAnswer) -> bool:
    return (answer.approval_id, answer.session_id) == (other.approval_id, other.session_id)


def _is_of(session_ids: Collection[str], line: bytes) -> bool:
    return any(answer.session_id in session_ids for answer in _answers(line))
