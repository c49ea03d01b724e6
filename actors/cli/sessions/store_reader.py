"""Reads sessions in a store for the commands, and answers their questions, without making pods of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from typing import Self

import msgspec

from actors.cli.display.format import ago, cut
from actors.cli.errors import SeveralFit
from actors.cli.places import default_store
from actors.pod.approvals.find import open_requests, resolution
from actors.pod.session.restore import last_run, sessions_of, tip
from actors.sessions import disk
from actors.sessions.answers import settled, wait
from actors.sessions.chain import head_of, verified
from actors.sessions.head import short_id, spellings
from actors.sessions.store import Holder, SessionInfo, SessionStore
from actors.sessions.urls import open_store, place_of
from actors.swarm.agents.history import pod_sessions_of
from protocol.agents import spec_of
from protocol.approval import ApprovalAnswer
from protocol.entries import Entry, Head, OtherEntry, Parent, SessionOpened, StoredEntry
from protocol.errors import AgentError, NewerVersion, SessionCorrupt, SessionError, SessionNotFound, WireError
from protocol.events import ApprovalRequested, ApprovalResolved, PodStarted, PodStopped, UserMessage
from protocol.manifest import PodManifest
from protocol.text import unshortened
from protocol.wire import decode_entry

#: Sessions among which the parents of the last changed ones are looked for.
_NEWEST = 50
#: What stands for the session that changed last, where an id is asked for.
LAST = "last"
#: Those among which the last one of a folder is looked for, and sessions that one has gone on from.
_LOOKED_THROUGH, _PARENTS = 1000, 20
#: Entries read at a time.
_PAGE = 500
#: Sessions that are named to a person whose beginning of an id fits several.
_SHOWN = 8
#: Entries that are looked through for the first words to a pod, and characters that are shown of it.
_FIRST, WORDS = 20, 60


class Reading:
    """A store that is read, and gets answers: what is not there is not made, but looked for again."""

    def __init__(self, store: str | None) -> None:
        self.url = store or default_store()
        self._opened: SessionStore | None = None

    @property
    def _store(self) -> SessionStore | None:
        if self._opened is None and exists(self.url):
            self._opened = open_store(self.url)
        return self._opened

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._opened is not None:
            wait(self._opened.close())

    def sessions(self, pod: str | None = None, limit: int | None = None) -> list[SessionInfo]:
        """The sessions there are, the last changed one first, at most ``limit``."""
        return [] if self._store is None else wait(sessions_of(self._store, pod, limit))

    def unreadable(self, *, lately: bool = False) -> dict[str, SessionError]:
        """What lies among the sessions and cannot be read as one, by its id, with what is wrong with it;
        ``lately``: among the last changed ones alone, where the store would have to look at each.
        """
        if self._store is None:
            return {}
        return wait(self._store.lately_unreadable(_LOOKED_THROUGH) if lately else self._store.unreadable())

    def find(self, beginning: str) -> SessionInfo:
        """The one session whose id, or short id, begins so, or the one that changed last for ``last``; of one
        that was deleted after its compaction, by its whole id, the one that goes on from it. Raises
        SessionNotFound, or UsageError if there are more.
        """
        there, found = self._store if beginning else None, list[SessionInfo]()
        for name in dict.fromkeys((*spellings(beginning), *spellings(unshortened(beginning)))):
            if there is not None and (found := wait(there.matching(name, _SHOWN + 1))):
                beginning = name
                break
        if found and (len(found) == 1 or found[0].session_id == beginning):
            return found[0]
        if not found and beginning == LAST and (newest := self._newest()) is not None:
            return newest
        if not found and there is not None and (last := wait(tip(there, beginning))) != beginning:
            return self.info(last)
        if not found:
            for session_id, error in self.unreadable().items() if beginning else ():
                if session_id.startswith(unshortened(beginning)):
                    raise error
            raise SessionNotFound(
                f"no session {beginning!r} in {self.url}", hint="list the sessions with polypod ps"
            )
        now = time.time()
        many = f"more than {_SHOWN}" if len(found) > _SHOWN else str(len(found))
        some = sorted(found[:_SHOWN], key=lambda each: each.updated_at, reverse=True)
        raise SeveralFit(
            f"{many} sessions match {beginning!r}; use one of these ids:",
            [self._summary(each, now) for each in some],
        )

    def _newest(self) -> SessionInfo | None:
        """The session that changed last; of a tree of pods, which change together, that of the uppermost."""
        return next(self._used_first(self._uppermost(self.sessions(limit=_NEWEST))), None)

    def newest(self, fits: Callable[[PodManifest], bool]) -> SessionInfo | None:
        """The last changed session of a pod whose manifest ``fits``; what cannot be read is passed over."""
        for info in self._used_first(self._uppermost(self.sessions(limit=_LOOKED_THROUGH))):
            with suppress(SessionError, WireError, AgentError):
                if fits(self.manifest(info.session_id)):
                    return info
        return None

    @staticmethod
    def _uppermost(found: list[SessionInfo]) -> Iterator[SessionInfo]:
        """The sessions of pods that are not sub-agents of others."""
        names = {info.pod for info in found}
        return (
            info
            for info in found
            if not any(info.pod[:at] in names for at, letter in enumerate(info.pod) if letter == ".")
        )

    def _used_first(self, found: Iterable[SessionInfo]) -> Iterator[SessionInfo]:
        """The sessions, behind the others those that a person does not mean to go on with: records of agents,
        and those in which nothing was said yet, as a chat leaves one that is killed before its first turn.
        """
        others = []
        for info in found:
            if self._is_record(info) or self._is_unused(info):
                others.append(info)
            else:
                yield info
        yield from others

    def _is_record(self, info: SessionInfo) -> bool:
        """Whether it is what is recorded of an agent, which ``polypod swarm`` goes on with."""
        with suppress(SessionError, WireError):
            opened = self._first_entry(info.session_id)
            return isinstance(opened, SessionOpened) and spec_of(opened.manifest) is not None
        return False

    def _is_unused(self, info: SessionInfo) -> bool:
        """Whether nothing was said in a session; what cannot be read was in use."""
        if info.parent is not None or info.head.seq > _FIRST:
            return False
        with suppress(SessionError, WireError):
            entries = (decode_entry(each.body) for each in self.stored(info.session_id))
            return all(isinstance(each, SessionOpened | PodStarted | PodStopped) for each in entries)
        return False

    def _summary(self, info: SessionInfo, now: float) -> str:
        """A session in a few words, by which a person knows it."""
        task = ""
        with suppress(SessionError, WireError):
            task = self.task(info.session_id)
        return (
            f"{short_id(info.session_id)}  {ago(info.updated_at, now)}, pod {info.pod}{task and f': {task}'}"
        )

    def task(self, session_id: str) -> str:
        """The first words to the pod of a session, on one line; empty where its first entries do not say."""
        return cut(self.first_words(session_id), WORDS)

    def first_words(self, session_id: str) -> str:
        """The first words to the pod of a session, whole; where it goes on from others, those that the first
        of these began with.
        """
        words = ""
        for _ in range(_PARENTS):
            try:
                found, parent = self._beginning(session_id)
            except SessionNotFound:
                if not words:
                    raise
                break
            words = found or words
            if parent is None:
                break
            session_id = parent.session_id
        return words

    def _beginning(self, session_id: str) -> tuple[str, Parent | None]:
        """The first words in a session's own entries, and the session that it goes on from."""
        parent = None
        for stored in wait(self._there().read(session_id, after=0, limit=_FIRST)):
            entry = decode_entry(stored.body)
            if isinstance(entry, SessionOpened):
                if (spec := spec_of(entry.manifest)) is not None:
                    return spec.task, None
                parent = entry.parent
            elif isinstance(entry, UserMessage):
                return entry.item.text, parent
        return "", parent

    def _first_entry(self, session_id: str) -> Entry | OtherEntry:
        page = wait(self._there().read(session_id, after=0, limit=1))
        if not page:
            raise SessionCorrupt(session_id, 1, "it has no entries")
        try:
            return decode_entry(page[0].body)
        except NewerVersion as error:
            raise error.of(session_id, page[0].seq) from error
        except WireError as error:
            raise SessionCorrupt(session_id, page[0].seq, str(error)) from error

    def stored(self, session_id: str, after: int = 0) -> Iterator[StoredEntry]:
        """The entries of a session numbered above ``after``, as they are kept; the chain is not checked."""
        while page := wait(self._there().read(session_id, after=after, limit=_PAGE)):
            yield from page
            after = page[-1].seq

    def pages(self, info: SessionInfo) -> Iterator[list[StoredEntry]]:
        """The entries of a session as it was listed, as they are kept: a few first, which most often are all
        there are, so that this takes one query; the chain is not checked.
        """
        after, size = 0, _FIRST
        while page := wait(self._there().read(info.session_id, after=after, limit=size)):
            yield page
            after, size = page[-1].seq, _PAGE
            if after >= info.head.seq > 0:  # damage may hide where it ends
                break

    def checked(self, session_id: str) -> Iterator[StoredEntry]:
        """All entries of a session, each checked against the one before. Raises SessionCorrupt."""
        before: Head | None = None
        while page := wait(self._there().read(session_id, after=before.seq if before else 0, limit=_PAGE)):
            yield from verified(session_id, page, before)
            before = head_of(page)

    def manifest(self, session_id: str) -> PodManifest:
        """What the pod of a session was asked to be. Raises WireError, and AgentError for an agent's."""
        opened = self._first_entry(session_id)
        assert isinstance(opened, SessionOpened)
        if (spec := spec_of(opened.manifest)) is not None:
            raise AgentError(
                f"session {session_id} belongs to agent {spec.id}",
                hint=f"continue it with polypod swarm resume {spec.id}",
            )
        try:
            return msgspec.json.decode(opened.manifest, type=PodManifest)
        except msgspec.DecodeError as error:
            raise NewerVersion(f"the manifest of session {session_id}", str(error)) from error

    def last_run(self, info: SessionInfo) -> str:
        """How the last run of a session ended: its outcome, ``open`` if it has no end, or ``none``."""
        return wait(last_run(self._there(), info))

    def of_runs(self, info: SessionInfo) -> SessionInfo:
        """The session that has the runs of this one: of an agent that is a pod, that of its pod."""
        opened = self._first_entry(info.session_id)
        if not isinstance(opened, SessionOpened) or spec_of(opened.manifest) is None:
            return info
        entries = (decode_entry(each.body) for each in self.stored(info.session_id))
        pods = pod_sessions_of(entries)
        return self.info(wait(tip(self._there(), pods[0]))) if pods else info

    def holder(self, session_id: str) -> Holder | None:
        """The process that holds a session, None if none does."""
        return wait(self._there().holder(session_id))

    def successors(self, session_id: str) -> list[SessionInfo]:
        """The sessions that go on from this one, oldest first."""
        return wait(self._there().successors(session_id))

    def info(self, session_id: str) -> SessionInfo:
        """What is known of one session, by its whole id. Raises SessionNotFound."""
        return wait(self._there().info(session_id))

    def asking(self) -> list[SessionInfo]:
        """The sessions with calls that wait, answered or not; what cannot be read is left out."""
        return [] if self._store is None else wait(_asking(self._store))

    def open_requests(self, info: SessionInfo) -> tuple[ApprovalRequested, ...]:
        """The calls of a session that wait for approval, answered or not. Raises SessionError, WireError."""
        return wait(open_requests(self._there(), info))

    def unanswered(self, info: SessionInfo) -> list[ApprovalRequested]:
        """The calls of a session that wait for approval and that nobody has answered yet."""
        asked = self.open_requests(info)
        if any(each.form is not None for each in asked) and self.holder(info.session_id) is None:
            asked = tuple(each for each in asked if each.form is None)  # whoever asked by a form is gone
        answers = self.answers([each.approval_id for each in asked]) if asked else []
        answered = {each.approval_id for each in answers if each.session_id == info.session_id}
        return [each for each in asked if each.approval_id not in answered]

    def resolution(self, request: ApprovalRequested, info: SessionInfo) -> ApprovalResolved | None:
        """What was said of a call since its session stood as ``info`` says."""
        return wait(resolution(self._there(), request, info))

    def answers(self, approval_ids: Collection[str]) -> list[ApprovalAnswer]:
        """The answers to calls that wait, or did."""
        return [] if self._store is None else wait(self._store.answers(approval_ids))

    def put_answer(self, answer: ApprovalAnswer) -> bool:
        """Keep an answer; False where there is one. Raises StoreError."""
        return wait(self._there().put_answer(answer))

    def _there(self) -> SessionStore:
        if self._store is None:
            raise SessionNotFound(f"there is no store at {self.url}")
        return self._store


async def _asking(store: SessionStore) -> list[SessionInfo]:
    found: list[SessionInfo] = []
    for info in await settled(store.sessions()):
        with suppress(SessionError, WireError):  # deleted meanwhile, or damaged: fsck says so
            if await open_requests(store, info):
                found.append(info)
    return found


def exists(url: str) -> bool:
    """Whether there is a store at ``url``; one in memory always exists. Raises StoreError for what is
    not a URL.
    """
    place = place_of(url)
    return not place.path or disk.place(place.path).exists()
