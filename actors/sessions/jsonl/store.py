"""``JsonLinesStore``: keeps each session in a file of JSON lines, for people to read and for ``tail -f`` to
follow.
"""

from __future__ import annotations

import contextlib
import heapq
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from actors.runtime.future import AsyncFuture
from actors.runtime.user_folders import make_private
from actors.sessions.disk import place, store_error
from actors.sessions.head import fits
from actors.sessions.jsonl.approval_answers import AnswersFile
from actors.sessions.jsonl.claims import Claims
from actors.sessions.jsonl.commit import JsonLinesCommits
from actors.sessions.jsonl.files import (
    FILES,
    Ends,
    Files,
    file_name,
    none_is_whole,
    opened,
    read_ends,
    session_of,
)
from actors.sessions.jsonl.lines import LineReader
from actors.sessions.jsonl.write import Append, Create, Held, Release, claim
from actors.sessions.lock import WriterLock
from actors.sessions.quarantine import aside_path
from actors.sessions.store import (
    Claim,
    Durability,
    Holder,
    SessionInfo,
    SessionStore,
    closed,
    delete_in_turn,
    in_use,
    not_found,
    this_process,
)
from protocol.approval import ApprovalAnswer
from protocol.entries import Head, Parent, StoredEntry
from protocol.errors import HeadConflict, SessionError, SessionNotFound, StoreError

_CHUNK = 128 << 10


class JsonLinesStore(SessionStore):
    """Sessions as files in one folder, which many processes may use at once. Raises StoreError.

    What is not for people is in its folder ``.polypod``: who holds which session, and which session follows
    which. ``durability`` is what a commit survives: the end of the process, however it ends, or a power cut.
    ``files`` is how files are changed.
    """

    keeps_answers = True

    def __init__(
        self, folder: str | os.PathLike[str], durability: Durability = "process", *, files: Files = FILES
    ) -> None:
        self.folder: Path = place(folder)
        self.url = f"jsonl:{folder}" + ("?durability=power" if durability == "power" else "")
        self._own = self.folder / ".polypod"
        self.files = (self.folder,)
        self._drafts = self._own / "drafts"
        self._sync = durability == "power"
        self._lock = WriterLock(self._own / "writers")
        self._claims = Claims(self._own / "claims", self._lock, files)
        self._answers = AnswersFile(self._own / "answers.jsonl", self._lock, files, sync=self._sync)
        self._commits = JsonLinesCommits(self.url, self._claims, durability, self._on_refusal)
        self._held: dict[str, Held] = {}
        self._pods: dict[str, str] = {}
        #: When each session read for a listing last changed, in nanoseconds.
        self._listed: dict[str, int] = {}
        # Where reading can continue: for each session the file's inode, an entry, and where that ends.
        self._places: dict[str, tuple[int, int, int]] = {}
        self._ends: dict[str, Ends] = {}
        self._closed = False
        with self._translated():
            for each in ("claims", "children", "drafts", "writers"):
                make_private(self._own / each)
            self._sweep()

    # -- the log

    def create(
        self,
        session_id: str,
        pod: str,
        parent: Parent | None,
        batch: Sequence[StoredEntry],
        *,
        claim: bool = True,
    ) -> AsyncFuture[None] | None:
        self._check_open()
        if session_id in self._held:
            raise HeadConflict(f"session {session_id} already exists in {self.url}")
        held = Held(session_id, self._path(session_id), pod)
        draft = self._drafts / f"{self._writer()}.{held.name}"
        mark = None if parent is None else self._children(parent.session_id) / held.name
        job = Create(held, parent, batch, claim=claim, draft=draft, mark=mark, sync=self._sync)
        if claim:
            self._held[session_id] = held
        return self._commits.submit(job)

    def append(self, session_id: str, after: Head, batch: Sequence[StoredEntry]) -> AsyncFuture[None] | None:
        self._check_open()
        held = self._held.get(session_id) or self._take(session_id, "")[0]
        return self._commits.submit(Append(held, after, batch)) if batch else None

    def read(self, session_id: str, *, after: int = 0, limit: int | None = None) -> list[StoredEntry]:
        return self._read(session_id, after, limit, None) or []

    def read_small(
        self, session_id: str, *, after: int = 0, limit: int | None = None, largest: int
    ) -> list[StoredEntry] | None:
        return self._read(session_id, after, limit, largest)

    def _read(
        self, session_id: str, after: int, limit: int | None, largest: int | None
    ) -> list[StoredEntry] | None:
        """The entries, up to one that requires reading more than ``largest`` bytes; None if that is the first
        one.
        """
        entries: list[StoredEntry] = []
        with self._translated(session_id), opened(self._path(session_id)) as file:
            ends = self._ends_of(session_id, file)
            begin = self._place(session_id, ends, after, file)
            reader = LineReader()
            file.seek(begin)
            while (limit is None or len(entries) < limit) and (
                data := file.read(min(_CHUNK, ends.sound - file.tell()))
            ):
                found = reader.feed(data)
                entries += found if not after else [entry for entry in found if entry.seq > after]
                if found and (limit is None or len(entries) <= limit):
                    self._places[session_id] = (ends.inode, found[-1].seq, begin + reader.seen)
                if largest is not None and reader.pending > largest:
                    return entries[:limit] or None
        return entries if limit is None else entries[:limit]

    def _ends_of(self, session_id: str, file: BinaryIO) -> Ends:
        """The ends of a file, searched only if it has changed, since its last entry may be long."""
        status = os.fstat(file.fileno())
        known = self._ends.get(session_id)
        if known is None or (known.inode, known.size, known.changed) != (
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
        ):
            known = self._ends[session_id] = read_ends(self._path(session_id))
        return known

    def _place(self, session_id: str, ends: Ends, after: int, file: BinaryIO) -> int:
        """The position in a file to continue reading after an entry: where that ended when it was read, if
        possible.
        """
        inode, seq, begin = self._places.get(session_id, (0, 0, 0))
        if inode != ends.inode or seq > after or not ends.start < begin <= ends.sound:
            return ends.start
        file.seek(begin - 1)  # in an overwritten file, lines end elsewhere
        return begin if file.read(1) == b"\n" else ends.start

    # -- listings

    def info(self, session_id: str) -> SessionInfo:
        with self._translated(session_id):
            ends = read_ends(self._path(session_id))
        if ends.head is None:
            raise none_is_whole(session_id)
        header = ends.header
        return SessionInfo(
            session_id,
            header.pod,
            header.created_at,
            ends.changed / 1e9,
            ends.head,
            header.parent,
        )

    def sessions(self, *, pod: str | None = None, limit: int | None = None) -> list[SessionInfo]:
        found: list[SessionInfo] = []
        for changed, session_id in sorted(self._changes(), reverse=True):
            if limit is not None and len(found) >= limit:
                break
            if pod is None or self._pods.get(session_id, pod) == pod:
                with contextlib.suppress(SessionError):  # deleted meanwhile, or not a session: see problems()
                    info = self.info(session_id)
                    self._pods[session_id], self._listed[session_id] = info.pod, changed
                    if pod in {None, info.pod}:
                        found.append(info)
        return found

    def matching(self, beginning: str, limit: int) -> list[SessionInfo]:
        ids = [session_id for _, session_id in self._changes() if fits(session_id, beginning)]
        found: list[SessionInfo] = []
        for session_id in sorted(ids, key=lambda each: (each != beginning, each)):
            if len(found) >= limit:
                break
            with contextlib.suppress(SessionError):  # deleted meanwhile, or not a session: see problems()
                found.append(self.info(session_id))
        return found

    def successors(self, session_id: str) -> list[SessionInfo]:
        found: list[tuple[int, SessionInfo]] = []
        line = [session_id]
        for earlier in line:  # grows by those that continued it and were deleted
            for made_at, child in self._marked(earlier):
                try:
                    info = self.info(child)
                except SessionNotFound:  # or it was never created, and nothing continues it
                    line += [] if child in line else [child]
                except SessionError:
                    continue
                else:
                    if info.parent is not None and info.parent.session_id == earlier:
                        found.append((made_at, info))
        return [info for _, info in sorted(found, key=_made_at)]

    def _marked(self, session_id: str) -> list[tuple[int, str]]:
        """The sessions that were created with this one as their parent, whether they exist or not, and when,
        in nanoseconds.
        """
        with self._translated():
            try:
                with os.scandir(self._children(session_id)) as marks:
                    found = sorted((mark.stat().st_mtime_ns, mark.name) for mark in marks)
            except FileNotFoundError:
                return []
        return [(made_at, session_of(name) or name) for made_at, name in found]

    def _changes(self) -> list[tuple[int, str]]:
        """When each session last changed, in nanoseconds; 0 if unknown: see problems()."""
        found = []
        with self._translated(), os.scandir(self.folder) as files:
            for file in files:
                session_id = session_of(file.name)
                if session_id is not None:
                    with contextlib.suppress(FileNotFoundError):
                        found.append((_changed(file), session_id))
        return found

    # -- claims

    def claim(self, session_id: str, pod: str) -> Claim:
        self._check_open()
        held = self._held.get(session_id)
        if held is not None and held.pod:
            raise in_use(session_id, this_process(held.pod, held.since))
        held, torn = self._take(session_id, pod)
        return Claim(session_id, pod, held.generation, torn)

    def _take(self, session_id: str, pod: str) -> tuple[Held, int]:
        """Claim a session that this store does not hold. Also returns how many torn bytes that cut off."""
        with self._translated(session_id):
            held = Held(session_id, self._path(session_id), pod)
            torn = claim(held, self._claims)
        self._held[session_id] = held
        return held, torn

    def release(self, session_id: str) -> None:
        held = self._held.pop(session_id, None)
        if held is not None:
            # A claim that cannot be deleted ends with this process, and is free at once for its own pods.
            with contextlib.suppress(SessionError):
                self._check_open()
                self._commits.submit(Release(held))

    def holder(self, session_id: str) -> Holder | None:
        self._check_open()
        held = self._held.get(session_id)
        if held is not None:
            return this_process(held.pod, held.since)
        with self._translated(session_id):
            self._path(session_id).stat()
            return self._claims.holder(file_name(session_id))

    # -- answers to approvals

    def put_answer(self, answer: ApprovalAnswer) -> bool:
        with self._translated():
            return self._answers.put(answer)

    def answers(self, approval_ids: Collection[str]) -> list[ApprovalAnswer]:
        with self._translated():
            return self._answers.among(approval_ids)

    def answers_since(self, mark: object) -> tuple[object, list[ApprovalAnswer]]:
        with self._translated():
            return self._answers.since(mark)

    # -- what was refused

    def _on_refusal(self, job: Append, failure: SessionError) -> None:
        """Forget the claims of a job that failed: of a session that was not created, or that another took
        over.
        """
        held = job.held
        if not isinstance(job, Create):
            with contextlib.suppress(OSError):
                if isinstance(failure, StoreError) or self._claims.stamp(held.name) == held.stamp:
                    return
        if self._held.get(held.session_id) is held:
            del self._held[held.session_id]

    # -- the store as a whole

    def delete(self, session_id: str) -> None:
        with self._translated(session_id), self._lock.gate():
            self._delete(session_id)
            self._answers.forget({session_id})

    def delete_all(self, sessions: Sequence[SessionInfo]) -> list[SessionInfo]:
        with self._translated(), self._lock.gate():
            gone = delete_in_turn(self, sessions, self._delete)
            self._answers.forget({info.session_id for info in gone})
        return gone

    def _delete(self, session_id: str) -> None:
        with self._translated(session_id):
            path, parent = self._path(session_id), None
            with contextlib.suppress(SessionError):  # damaged sessions may be deleted too
                parent = read_ends(path).header.parent
            if (holder := self.holder(session_id)) is not None:
                raise in_use(session_id, holder)
            path.unlink()
            self._claims.remove(path.name)
            self._places.pop(session_id, None)
            self._ends.pop(session_id, None)
            self._pods.pop(session_id, None)
            self._listed.pop(session_id, None)
            if parent is not None and not (parent.kind == "compacted_from" and self._marked(session_id)):
                children = self._children(parent.session_id)
                (children / path.name).unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # it is not empty
                    children.rmdir()

    def torn(self, session_id: str) -> int:
        with self._translated(session_id):
            ends = read_ends(self._path(session_id))
        return ends.size - ends.sound

    def unreadable(self) -> dict[str, SessionError]:
        return self._unreadable(self._changes())

    def lately_unreadable(self, looked_at: int) -> dict[str, SessionError]:
        return self._unreadable(heapq.nlargest(looked_at, self._changes()))

    def _unreadable(self, changes: Iterable[tuple[int, str]]) -> dict[str, SessionError]:
        found: dict[str, SessionError] = {}
        for changed, session_id in changes:
            if self._listed.get(session_id) == changed > 0:
                continue  # a listing shows it
            try:
                self.info(session_id)
            except SessionNotFound:
                continue
            except SessionError as error:
                found[session_id] = error
        return found

    def put_aside(self, session_id: str, folder: Path) -> Path:
        with self._translated(session_id), self._lock.gate():
            if (holder := self.holder(session_id)) is not None:
                raise in_use(session_id, holder)
            make_private(folder)
            kept = aside_path(session_id, folder)
            self._path(session_id).rename(kept)
            self._claims.remove(file_name(session_id))
        return kept

    def flush(self) -> None:
        self._commits.flush()

    def close(self) -> None:
        if not self._closed and not self._lock.inherited:
            self._commits.close()
            self._lock.release()
            self._closed = True

    # -- below

    def _check_open(self) -> None:
        if self._closed or self._lock.inherited:
            raise closed(self.url, inherited=self._lock.inherited)

    @contextlib.contextmanager
    def _translated(self, session_id: str | None = None) -> Iterator[None]:
        """Turn errors of the disk into StoreError, and a missing file into SessionNotFound."""
        self._check_open()
        try:
            yield
        except FileNotFoundError as error:
            if session_id is None or not self.folder.exists():
                raise store_error(error, self.folder) from error
            raise not_found(session_id, self.url) from error
        except OSError as error:
            raise store_error(error, error.filename or self.folder) from error

    def _writer(self) -> str:
        with self._translated():
            return self._lock.id

    def _sweep(self) -> None:
        """Remove the drafts of processes that died while writing them."""
        for draft in self._drafts.iterdir():
            if self._lock.alive(draft.name.partition(".")[0]) is None:
                with contextlib.suppress(OSError):
                    draft.unlink()

    def _path(self, session_id: str) -> Path:
        return self.folder / file_name(session_id)

    def _children(self, session_id: str) -> Path:
        return self._own / "children" / file_name(session_id)


def _made_at(mark: tuple[int, SessionInfo]) -> int:
    return mark[0]


def _changed(file: os.DirEntry[str]) -> int:
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        raise
    except OSError:  # such as a link to itself: one bad name does not hide the others
        return 0
