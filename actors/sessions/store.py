"""``SessionStore``: the contract of all session stores, and what they share. Each store has a folder beside
this module.
"""

from __future__ import annotations

import abc
import contextlib
import os
import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from actors.runtime.on_demand import on_demand
from actors.sessions.answers import Answer, Kept, then, wait
from actors.sessions.head import fits
from protocol.approval import ApprovalAnswer
from protocol.entries import Head, Parent, StoredEntry
from protocol.errors import (
    HeadConflict,
    SessionCorrupt,
    SessionError,
    SessionInUse,
    SessionNotFound,
    StoreError,
)

if TYPE_CHECKING:
    from actors.sessions.memory.store import MemoryStore as MemoryStore  # noqa: PLC0414 - for type checkers
    from actors.sessions.sqlite.tables import StoreTables
else:  # where programs of earlier versions import it from
    __getattr__, __dir__ = on_demand(__name__, {"MemoryStore": "actors.sessions.memory.store"})

Durability = Literal["process", "power"]


class SessionInfo(Struct, frozen=True):
    """What a listing shows of a session. ``updated_at`` is seconds since the epoch, UTC, by a clock that may
    be set; which session changed last shows by their order in a listing.
    """

    session_id: str
    pod: str
    created_at: float
    updated_at: float
    head: Head
    parent: Parent | None = None


class Holder(Struct, frozen=True):
    """Who holds a session: a living process, since when (seconds since the epoch), and its pod."""

    pid: int
    host: str
    since: float
    pod: str = ""


class Claim(Struct, frozen=True):
    """The right to append to a session. ``generation`` counts its holders.

    ``torn`` is the number of bytes of a half-written last batch that were cut off by the claim; the pod
    publishes that as an alert.
    """

    session_id: str
    pod: str
    generation: int
    torn: int = 0


class SessionStore(abc.ABC):
    """Where session logs are kept.

    All methods are called on the event loop of one system, except where they say otherwise. Each returns its
    answer at once (in under 5 ms), or an awaitable of it, so a store over a network can use ``async def``.
    ``create`` and ``append`` may also return a ``concurrent.futures.Future``, if a thread of the store
    writes. ``read`` may be called from any thread, if an entry may be long; an awaitable that it returns is
    awaited on the loop.

    Entries arrive hashed and are kept as the bytes they are, which must be one line of JSON each. Failures
    are StoreError (or a related class), raised by the call or by the awaitable, and leave nothing
    half-written: a batch is kept whole or not at all. A read that nobody waits for any more is cancelled. A
    claim never is, but is released. A commit is cancelled only at the end of its loop, or of a pod that has
    waited for ``store_grace``.

    One writer: ``create`` or ``claim`` claims a session, or else the first ``append``, even if it is refused
    (for no pod, so that ``claim`` can still set one). The session stays claimed until ``release``, ``close``
    or the end of the process.

    Appends that wait in futures are carried out in the order of their calls. The loop on which they were
    called may have to take part: await the future there (``asyncio.wrap_future``), or call ``flush`` before
    blocking the loop. A pod gives one batch at a time, and the next once that is answered.
    """

    #: The store's name in a URL and in messages: ``memory:``, ``sqlite:pods.db``.
    url: str
    #: The folder of its files, if it has any; what belongs to its sessions is kept there too.
    folder: Path | None = None
    #: Its files and folders, which no tool of a pod may touch.
    files: tuple[Path, ...] = ()
    #: Whether it keeps answers to calls that wait for approval, so that any process can give them.
    keeps_answers = False

    @abc.abstractmethod
    def create(
        self,
        session_id: str,
        pod: str,
        parent: Parent | None,
        batch: Sequence[StoredEntry],
        *,
        claim: bool = True,
    ) -> Kept:
        """Create a session with its first entries (at least one) in one transaction.

        It is claimed for ``pod`` in the same transaction, unless ``claim`` is false. Returns None when it is
        durable, or a future that resolves when it is. Raises (or resolves with) HeadConflict if a session
        with that id exists, StoreError.
        """

    @abc.abstractmethod
    def append(self, session_id: str, after: Head, batch: Sequence[StoredEntry]) -> Kept:
        """Add entries after ``after``, the head the caller knows: compare-and-swap.

        Returns None when they are durable, or a future that resolves when they are. Raises (or resolves with)
        HeadConflict if the session's head is another, SessionInUse if another process has taken the session,
        SessionNotFound, StoreError.
        """

    @abc.abstractmethod
    def read(self, session_id: str, *, after: int = 0, limit: int | None = None) -> Answer[list[StoredEntry]]:
        """The entries with numbers above ``after``, in order, at most ``limit``.

        Raises SessionNotFound, StoreError. The chain is not checked here: see ``chain.verified``.
        """

    def read_small(
        self, session_id: str, *, after: int = 0, limit: int | None = None, largest: int
    ) -> Answer[list[StoredEntry] | None]:
        """Like ``read``, but only up to the first entry with more than about ``largest`` bytes. None if that
        is the next one, or must be read on the way to it: then call ``read`` in a thread, if the loop must
        not be held up.
        """
        return then(self.read(session_id, after=after, limit=limit), partial(_small, largest))

    @abc.abstractmethod
    def info(self, session_id: str) -> Answer[SessionInfo]:
        """What is known of one session. Raises SessionNotFound, StoreError."""

    @abc.abstractmethod
    def sessions(self, *, pod: str | None = None, limit: int | None = None) -> Answer[list[SessionInfo]]:
        """The sessions (of one pod), at most ``limit``, the last changed first, in the order in which they
        were written, even if the clock was set back in between.
        """

    def matching(self, beginning: str, limit: int) -> Answer[list[SessionInfo]]:
        """At most ``limit`` of the sessions whose ids, or short ids, begin so, ordered by id; an exact match
        comes first.
        """
        return then(self.sessions(), partial(_matching, beginning, limit))

    @abc.abstractmethod
    def successors(self, session_id: str) -> Answer[list[SessionInfo]]:
        """The sessions whose parent this one is, oldest first, even if this one was deleted. If a session
        that was compacted from it was deleted, the sessions that continue that one are included, so that
        whoever knows an older session finds the newest.
        """

    @abc.abstractmethod
    def claim(self, session_id: str, pod: str) -> Answer[Claim]:
        """Claim the session for ``pod``, also from a process that has died.

        Raises SessionInUse if a pod of this process, or another living process, holds it; SessionNotFound,
        StoreError.
        """

    @abc.abstractmethod
    def release(self, session_id: str) -> Answer[None]:
        """Release a session; does nothing if it is not held. Never raises: a claim that could not be deleted
        ends with the process.
        """

    @abc.abstractmethod
    def holder(self, session_id: str) -> Answer[Holder | None]:
        """Who holds the session, None if nobody does. Raises SessionNotFound, StoreError."""

    @abc.abstractmethod
    def delete(self, session_id: str) -> Answer[None]:
        """Delete a session and its entries for good. Raises SessionInUse while anybody holds it,
        SessionNotFound, StoreError.
        """

    def delete_all(self, sessions: Sequence[SessionInfo]) -> Answer[list[SessionInfo]]:
        """Delete sessions for good, children before their parents, and return those deleted. A session that
        somebody holds or has changed since it was listed stays, and so do its ancestors. Others wait
        meanwhile, so pass at most some hundred. Called while no loop runs. Raises StoreError: then some may
        be deleted.
        """
        return delete_in_turn(self, sessions, self.delete)

    def put_answer(self, answer: ApprovalAnswer) -> Answer[bool]:  # noqa: ARG002
        """Keep an answer to a call that waits for approval, if it is the first of all processes for its id
        and session; otherwise return False. It survives the process, but perhaps not a power cut. Raises
        StoreError.
        """
        raise StoreError(
            f"{self.url} cannot store answers to approvals", hint="answer in the process that runs the pod"
        )

    def answers(self, approval_ids: Collection[str]) -> Answer[list[ApprovalAnswer]]:  # noqa: ARG002
        """The answers to these approvals, in whatever session. Raises StoreError."""
        return []

    def answers_since(self, mark: object) -> Answer[tuple[object, list[ApprovalAnswer]]]:
        """The answers after ``mark``, and the current mark; with None only the mark. An answer may be
        returned twice. Raises StoreError.
        """
        return mark, []

    def tables(self) -> StoreTables | None:
        """A connection to the store's file for tables of other parts; None if it has no such file."""
        return None

    def torn(self, session_id: str) -> Answer[int]:
        """The number of bytes of a half-written last batch, which ``read`` skips and ``claim`` cuts off.
        Raises SessionNotFound, StoreError.
        """
        return then(self.info(session_id), lambda _: 0)

    def unreadable(self) -> Answer[dict[str, SessionError]]:
        """Sessions that no listing shows, because what describes them is damaged or of a newer version."""
        return {}

    def lately_unreadable(self, looked_at: int) -> Answer[dict[str, SessionError]]:  # noqa: ARG002
        """Like ``unreadable``, but at least for the ``looked_at`` sessions that changed last: for a store
        that has to look at each.
        """
        return self.unreadable()

    def bring_back(self, session_id: str) -> Answer[None]:
        """Make what describes an unreadable session again, if its entries say enough for that; otherwise do
        nothing. Called while no loop runs. Raises StoreError.
        """

    def put_aside(self, session_id: str, folder: Path) -> Answer[Path | None]:
        """Take a damaged session out of the store, and keep it as it is in a file in ``folder``. Returns the
        file; None if nothing is left to keep. Called while no loop runs.

        Raises SessionInUse while anybody holds it, SessionNotFound, StoreError.
        """
        from actors.sessions.quarantine import keep_aside  # noqa: PLC0415 - only for damaged sessions

        kept = keep_aside(self, session_id, folder)
        wait(self.delete(session_id))
        return kept

    def problems(self) -> Answer[list[str]]:
        """What is wrong with the store as a whole, apart from its sessions; may take long."""
        return []

    def reclaim(self) -> Answer[None]:
        """Return the space of deleted sessions to the disk; may take long. Raises StoreError."""

    def flush(self) -> None:
        """Wait until everything given to the store is durable; called off the loop, at exit."""

    def close(self) -> Answer[None]:
        """Flush, close all files and release all claims. Idempotent."""


def delete_in_turn(
    store: SessionStore, sessions: Sequence[SessionInfo], delete: Callable[[str], Answer[None]]
) -> list[SessionInfo]:
    """Implements ``delete_all`` by calling ``delete`` for each session that can be deleted."""
    gone: list[SessionInfo] = []
    needed: set[str] = set()
    for info in sessions:
        with contextlib.suppress(SessionCorrupt, SessionInUse, SessionNotFound):
            if info.session_id not in needed and wait(store.info(info.session_id)).head == info.head:
                wait(delete(info.session_id))
                gone.append(info)
                continue
        if info.parent is not None:
            needed.add(info.parent.session_id)
    return gone


def _small(largest: int, page: list[StoredEntry]) -> list[StoredEntry] | None:
    """A page up to the first entry that is too long; None if that is the first of all."""
    for number, entry in enumerate(page):
        if len(entry.body) > largest:
            return page[:number] or None
    return page


def _matching(beginning: str, limit: int, sessions: list[SessionInfo]) -> list[SessionInfo]:
    found = [info for info in sessions if fits(info.session_id, beginning)]
    return sorted(found, key=lambda info: (info.session_id != beginning, info.session_id))[:limit]


def this_process(pod: str, since: float) -> Holder:
    """The current process as a holder."""
    return Holder(os.getpid(), socket.gethostname(), since, pod)


#: The pids and names of pods of this program that are processes of their own. A new process may get the pid
#: of one that has just ended.
_process_pods: list[tuple[int, str]] = []


@contextlib.contextmanager
def process_of_pod(pid: int, pod: str) -> Iterator[None]:
    """Within the context, ``in_use`` knows that a process is a pod of this program."""
    _process_pods.append((pid, pod))
    try:
        yield
    finally:
        _process_pods.remove((pid, pod))


def in_use(session_id: str, holder: Holder) -> SessionInUse:
    """The error that names who holds a session."""
    error = SessionInUse(session_id, pid=holder.pid, host=holder.host, since=holder.since, pod=holder.pod)
    if not holder.pod or holder.host != socket.gethostname():
        return error
    processes = dict(_process_pods)  # of two with one pid the newer one
    pod = holder.pod if holder.pid == os.getpid() else processes.get(holder.pid)
    if pod is not None:
        that = "that has it" if pod == holder.pod else "whose sub-agent has it"
        error.hint = f"this program itself has it: get({pod!r}) of its system returns the pod {that}"
    return error


def not_found(session_id: str, url: str) -> SessionNotFound:
    """The error for a session that the store does not have."""
    hint = "list the sessions with polypod ps"
    return SessionNotFound(f"no session {session_id} in {url}", hint=hint)


def closed(url: str, *, inherited: bool) -> StoreError:
    """The error for a store that was closed, or that a forked child has inherited."""
    if inherited:
        return StoreError(f"{url} was opened by the parent process", hint="open it again in this process")
    return StoreError(f"{url} is closed", hint="open it again")


def check_follows(session_id: str, head: Head, after: Head, batch: Sequence[StoredEntry]) -> None:
    """Raise HeadConflict unless ``after`` is the head and the batch continues it."""
    if head != after:
        raise HeadConflict(f"session {session_id} has moved on to entry {head.seq}, not {after.seq}")
    if batch[0].seq != after.seq + 1:
        raise HeadConflict(f"entry {batch[0].seq} cannot follow entry {after.seq} of session {session_id}")
