"""Retention: deletes sessions by age, and those that a compaction has superseded."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence

from actors.sessions.answers import wait
from actors.sessions.repair import sound_prefix
from actors.sessions.store import SessionInfo, SessionStore
from protocol.errors import SessionInUse, SessionNotFound


def doomed(
    sessions: Sequence[SessionInfo],
    *,
    before: float | None = None,
    superseded: bool = False,
    keep: Container[str] = (),
) -> list[SessionInfo]:
    """The sessions that may go, children before their parents.

    ``before`` takes those that changed last before that time (seconds since the epoch), ``superseded``
    those that were compacted into another, ``keep`` spares sessions by their ids. What a remaining
    session was forked from stays, and what one was compacted from does unless ``superseded``.
    """
    children: dict[str, list[SessionInfo]] = defaultdict(list)
    for info in sessions:
        if info.parent is not None:
            children[info.parent.session_id].append(info)
    gone: dict[str, SessionInfo] = {}
    for info in _children_first(sessions, children):
        followers = children[info.session_id]
        left = [follower for follower in followers if follower.session_id not in gone]
        if superseded and any(map(_is_compaction, followers)):
            goes = all(map(_is_compaction, left))
        else:
            goes = before is not None and info.updated_at < before and not left
        if goes and info.session_id not in keep:
            gone[info.session_id] = info
    return list(gone.values())


def collect(
    store: SessionStore,
    *,
    older_than: float | None = None,
    superseded: bool = False,
    now: float | None = None,
    dry_run: bool = False,
) -> list[SessionInfo]:
    """Delete what may go and is held by nobody, and return it; ``older_than`` in seconds. With ``dry_run``
    nothing is deleted.

    A session counts as superseded only by one whose chain is sound. Raises StoreError.
    """
    before = None if older_than is None else (time.time() if now is None else now) - older_than
    sessions = wait(store.sessions())
    gone: list[SessionInfo] = []
    needed: set[str] = set()
    for info in doomed(sessions, before=before, superseded=superseded, keep=_Held(store)):
        if info.session_id not in needed and _may_go(store, info) and (dry_run or _delete(store, info)):
            gone.append(info)
        elif info.parent is not None and not (superseded and _is_compaction(info)):
            needed.add(info.parent.session_id)  # which would have gone after this one
    return gone


def _may_go(store: SessionStore, info: SessionInfo) -> bool:
    """Whether a session is as it was when it was listed, and what goes on from it is sound."""
    try:
        return wait(store.info(info.session_id)).head == info.head and _followers_are_sound(store, info)
    except SessionNotFound:  # somebody was faster
        return False


def _delete(store: SessionStore, info: SessionInfo) -> bool:
    """Delete a session; False where somebody was faster, and has it or has deleted it."""
    try:
        wait(store.delete(info.session_id))
    except (SessionInUse, SessionNotFound):
        return False
    return True


def _children_first(
    sessions: Sequence[SessionInfo], children: Mapping[str, Sequence[SessionInfo]]
) -> Iterator[SessionInfo]:
    """In an order that asks no clock, which may have been set back."""
    seen: set[str] = set()
    stack = [(info, False) for info in sessions]
    while stack:
        info, expanded = stack.pop()
        if expanded:
            yield info
        elif info.session_id not in seen:
            seen.add(info.session_id)
            stack.append((info, True))
            stack += [(child, False) for child in children.get(info.session_id, ())]


def _is_compaction(info: SessionInfo) -> bool:
    return info.parent is not None and info.parent.kind == "compacted_from"


class _Held:
    """The sessions that are held; each is asked about only where it may go."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    def __contains__(self, session_id: object) -> bool:
        try:
            return wait(self._store.holder(str(session_id))) is not None
        except SessionNotFound:
            return False


def _followers_are_sound(store: SessionStore, info: SessionInfo) -> bool:
    followers = filter(_is_compaction, wait(store.successors(info.session_id)))
    return all(sound_prefix(store, follower.session_id)[1] is None for follower in followers)
