"""The contract of session stores, and what all of them say alike; a folder beside this one has each store."""

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
    __getattr__ = on_demand(__name__, {"MemoryStore": "actors.sessions.memory.store"})

Durability = Literal["process", "power"]


class SessionInfo(Struct, frozen=True):
    """What a listing shows of a session; ``updated_at`` is seconds since the epoch, UTC, by a clock that
    may be set: their order in a listing says which changed last.
    """

    session_id: str
    pod: str
    created_at: float
    updated_at: float
    head: Head
    parent: Parent | None = None


class Holder(Struct, frozen=True):
    """Who holds a session: a process that lives, since when (seconds since the epoch), and its pod."""

    pid: int
    host: str
    since: float
    pod: str = ""


class Claim(Struct, frozen=True):
    """The right to append to a session. ``generation`` counts its holders.

    ``torn`` is the number of bytes of a half-written last batch that were cut off when the session
    was claimed; its pod publishes that as an alert.
    """

    session_id: str
    pod: str
    generation: int
    torn: int = 0


class SessionStore(abc.ABC):
    """Where session logs are kept.

    All methods are called on the event loop of one system, but for those that say otherwise. Each gives
    its answer at once (under 5 ms), or an awaitable of it, as an ``async def`` does: a store over a
    network is written so. ``create`` and ``append`` may give a ``concurrent.futures.Future`` as well, where
    a thread of the store's writes. ``read`` may be called from any thread, where an entry may be long;
    what it gives is awaited on the loop. Entries come hashed and
    are kept as the bytes they are, which must be one line of JSON each. Failures are StoreError (or
    its kin), raised by the call or by what is awaited, and leave nothing half-written: a batch is kept
    whole or not at all. A read that nobody waits for any more is cancelled; a claim never is, but given
    back; a commit only at the end of its loop, or of a pod that has waited for ``store_grace``.

    One writer: a session is claimed by ``create``, by ``claim``, or else by the first ``append``, be it
    refused (for no pod, so that ``claim`` may still give it one), and stays claimed until ``release``,
    ``close`` or the end of the process. Appends that wait in futures are carried out in the order in
    which they were given, each behind the one before. The loop that they were given on may have a part
    in that: there a future is awaited (``asyncio.wrap_future``); who blocks it calls ``flush`` first.
    A pod gives one batch at a time, and the next once that is answered.
    """

    #: What the store is called in a URL and in messages: ``memory:``, ``sqlite:pods.db``.
    url: str
    #: The folder of its files, where it has any: what belongs to its sessions is kept there too.
    folder: Path | None = None
    #: Its files and folders, which no tool of a pod touches.
    files: tuple[Path, ...] = ()
    #: Whether it keeps answers to calls that wait for approval, so that any process may give them.
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
        """Make a session with its first entries (one at least) in one transaction.

        It is claimed for ``pod`` in the same transaction, unless ``claim`` is false. Returns None when
        it is durable, or a future that resolves when it is. Raises (or resolves with) HeadConflict
        where a session of that id exists, StoreError.
        """

    @abc.abstractmethod
    def append(self, session_id: str, after: Head, batch: Sequence[StoredEntry]) -> Kept:
        """Add entries behind ``after``, the head the caller knows: compare-and-swap.

        Returns None when they are durable, or a future that resolves when they are. Raises (or
        resolves with) HeadConflict where the session's head is another, SessionInUse where another
        process holds the session by now, SessionNotFound, StoreError.
        """

    @abc.abstractmethod
    def read(self, session_id: str, *, after: int = 0, limit: int | None = None) -> Answer[list[StoredEntry]]:
        """The entries with numbers above ``after``, in order, at most ``limit``.

        Raises SessionNotFound, StoreError. The chain is not checked here: see ``chain.verified``.
        """

    def read_small(
        self, session_id: str, *, after: int = 0, limit: int | None = None, largest: int
    ) -> Answer[list[StoredEntry] | None]:
        """What ``read`` gives, up to the first entry with more than ``largest`` bytes (or about that); None
        where that is the very next one, or lies on the way to it: then read it in a thread, if the loop must
        not be held.
        """
        return then(self.read(session_id, after=after, limit=limit), partial(_small, largest))

    @abc.abstractmethod
    def info(self, session_id: str) -> Answer[SessionInfo]:
        """What is known of one session. Raises SessionNotFound, StoreError."""

    @abc.abstractmethod
    def sessions(self, *, pod: str | None = None, limit: int | None = None) -> Answer[list[SessionInfo]]:
        """The sessions (of one pod), the last changed one first, at most ``limit``; by the order in which
        they were written, also where the clock was set back between.
        """

    def matching(self, beginning: str, limit: int) -> Answer[list[SessionInfo]]:
        """At most ``limit`` of the sessions whose ids, or short ids, begin so, in order of their ids; one
        that is called just so comes first.
        """
        return then(self.sessions(), partial(_matching, beginning, limit))

    @abc.abstractmethod
    def successors(self, session_id: str) -> Answer[list[SessionInfo]]:
        """The sessions whose parent this one is, oldest first, even if this one was deleted. If one that was
        compacted from it was deleted, the sessions that go on from that one are among them, so that whoever
        knows an older session finds the newest.
        """

    @abc.abstractmethod
    def claim(self, session_id: str, pod: str) -> Answer[Claim]:
        """Take the session for ``pod``, also from a process that has died.

        Raises SessionInUse where a pod of this process, or a process that lives, holds it;
        SessionNotFound, StoreError.
        """

    @abc.abstractmethod
    def release(self, session_id: str) -> Answer[None]:
        """Release a session; does nothing if it is not held. Never raises: what could not be
        written ends with the process.
        """

    @abc.abstractmethod
    def holder(self, session_id: str) -> Answer[Holder | None]:
        """Who holds the session, None where nobody does. Raises SessionNotFound, StoreError."""

    @abc.abstractmethod
    def delete(self, session_id: str) -> Answer[None]:
        """Remove a session and its entries for good. Raises SessionInUse while anybody holds it,
        SessionNotFound, StoreError.
        """

    def delete_all(self, sessions: Sequence[SessionInfo]) -> Answer[list[SessionInfo]]:
        """Remove sessions for good, children before their parents, and return those that went: what somebody
        holds or has changed since it was listed stays, and so does what that comes from. Others wait
        meanwhile, so there should be some hundred at most. Called where no loop runs. Raises StoreError:
        then some may have gone.
        """
        return delete_in_turn(self, sessions, self.delete)

    def put_answer(self, answer: ApprovalAnswer) -> Answer[bool]:  # noqa: ARG002
        """Keep an answer to a call that waits for approval: the first of all processes to its id in its
        session. False where there is one already. It outlives the process, and may not outlive a power cut.
        Raises StoreError.
        """
        raise StoreError(
            f"{self.url} keeps no answers to approvals", hint="answer in the process that has the pod"
        )

    def answers(self, approval_ids: Collection[str]) -> Answer[list[ApprovalAnswer]]:  # noqa: ARG002
        """The answers to these ids, in whatever session. Raises StoreError."""
        return []

    def answers_since(self, mark: object) -> Answer[tuple[object, list[ApprovalAnswer]]]:
        """The answers that came after ``mark``, and the mark of now; of None that alone. One may come
        twice. Raises StoreError.
        """
        return mark, []

    def tables(self) -> StoreTables | None:
        """A connection to the store's file for tables of others; None where it has no file that takes any."""
        return None

    def torn(self, session_id: str) -> Answer[int]:
        """The number of bytes of a half-written last batch, which ``read`` passes over and
        ``claim`` cuts off. Raises SessionNotFound, StoreError.
        """
        return then(self.info(session_id), lambda _: 0)

    def unreadable(self) -> Answer[dict[str, SessionError]]:
        """Sessions that no listing shows, since what describes them is damaged or of a newer version."""
        return {}

    def lately_unreadable(self, looked_at: int) -> Answer[dict[str, SessionError]]:  # noqa: ARG002
        """What ``unreadable`` gives, at least of the ``looked_at`` sessions that changed last: for a store
        that has to look at each.
        """
        return self.unreadable()

    def bring_back(self, session_id: str) -> Answer[None]:
        """Make anew what describes an unreadable session, where its entries say enough for that; else do
        nothing. Called where no loop runs. Raises StoreError.
        """

    def put_aside(self, session_id: str, folder: Path) -> Answer[Path | None]:
        """Take a damaged session out of the store, and keep it as it is in a file in ``folder``: that file;
        None where nothing is left of it to keep. Called where no loop runs.

        Raises SessionInUse while anybody holds it, SessionNotFound, StoreError.
        """
        from actors.sessions.quarantine import keep_aside  # noqa: PLC0415 - for what is damaged alone

        kept = keep_aside(self, session_id, folder)
        wait(self.delete(session_id))
        return kept

    def problems(self) -> Answer[list[str]]:
        """What is wrong with the store as a whole, besides its sessions; may take long."""
        return []

    def reclaim(self) -> Answer[None]:
        """Give the space of deleted sessions back to the disk; may take long. Raises StoreError."""

    def flush(self) -> None:
        """Wait until all that was given is durable; called off the loop, at exit."""

    def close(self) -> Answer[None]:
        """Flush and let go of files and claims; idempotent."""


def delete_in_turn(
    store: SessionStore, sessions: Sequence[SessionInfo], delete: Callable[[str], Answer[None]]
) -> list[SessionInfo]:
    """What ``delete_all`` does, with ``delete`` for each that may go."""
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
    """A page up to the first entry that is too long; None where that is the first of all."""
    for number, entry in enumerate(page):
        if len(entry.body) > largest:
            return page[:number] or None
    return page


def _matching(beginning: str, limit: int, sessions: list[SessionInfo]) -> list[SessionInfo]:
    found = [info for info in sessions if fits(info.session_id, beginning)]
    return sorted(found, key=lambda info: (info.session_id != beginning, info.session_id))[:limit]


def this_process(pod: str, since: float) -> Holder:
    """The holder that our own process is."""
    return Holder(os.getpid(), socket.gethostname(), since, pod)


#: The pods of this program that are processes of their own, by the numbers of those.
_process_pods: dict[int, str] = {}


@contextlib.contextmanager
def process_of_pod(pid: int, pod: str) -> Iterator[None]:
    """While this is entered, ``in_use`` knows that a process is a pod of this program."""
    _process_pods[pid] = pod
    try:
        yield
    finally:
        del _process_pods[pid]


def in_use(session_id: str, holder: Holder) -> SessionInUse:
    """The error that names who holds a session."""
    error = SessionInUse(session_id, pid=holder.pid, host=holder.host, since=holder.since, pod=holder.pod)
    if not holder.pod or holder.host != socket.gethostname():
        return error
    pod = holder.pod if holder.pid == os.getpid() else _process_pods.get(holder.pid)
    if pod is not None:
        that = "that has it" if pod == holder.pod else "whose sub-agent has it"
        error.hint = f"it is this program's own: get({pod!r}) of its system gives the pod {that}"
    return error


def not_found(session_id: str, url: str) -> SessionNotFound:
    """The error that says which store has no such session."""
    hint = "polypod ps lists the sessions there are"
    return SessionNotFound(f"no session {session_id} in {url}", hint=hint)


def closed(url: str, *, inherited: bool) -> StoreError:
    """The error for a store that was closed, or that a forked child has from its parent."""
    if inherited:
        return StoreError(f"{url} was opened by the parent process", hint="open it anew in this one")
    return StoreError(f"{url} is closed", hint="open it again")


def check_follows(session_id: str, head: Head, after: Head, batch: Sequence[StoredEntry]) -> None:
    """Raise HeadConflict unless ``after`` is the head and the batch goes on from it."""
    if head != after:
        raise HeadConflict(f"session {session_id} has moved on to entry {head.seq}, not {after.seq}")
    if batch[0].seq != after.seq + 1:
        raise HeadConflict(f"entry {batch[0].seq} cannot follow entry {after.seq} of session {session_id}")
