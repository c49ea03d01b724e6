"""Retention: deletes old sessions, and those that a compaction has superseded."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from actors.sessions.answers import wait
from actors.sessions.disk import is_of_full_disk
from actors.sessions.repair import sound_prefix
from actors.sessions.store import SessionInfo, SessionStore
from protocol.errors import SessionNotFound, StoreError

#: The most sessions that are deleted together, and the most entries in them: some 10 ms, for which others
#: wait.
_BATCH, _ENTRIES = 100, 2000


def doomed(
    sessions: Sequence[SessionInfo],
    *,
    before: float | None = None,
    superseded: bool = False,
    keep: Container[str] = (),
) -> list[SessionInfo]:
    """The sessions that can be deleted, children before their parents.

    ``before`` selects those last changed before that time (seconds since the epoch), ``superseded`` those
    that were compacted into another; ``keep`` spares sessions by id. A session from which a remaining one was
    forked stays, and so does one from which a remaining one was compacted, unless ``superseded``.
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
    """Delete the sessions that can go and are not held, and return them; ``older_than`` is in seconds. With
    ``dry_run`` nothing is deleted.

    A session counts as superseded only if the chain of its successor is sound. Raises StoreError.
    """
    before = None if older_than is None else (time.time() if now is None else now) - older_than
    # Otherwise holders are looked up at the deletion; then the ancestors of a held session stay.
    keep = _Held(store) if dry_run or superseded else ()
    gone: list[SessionInfo] = []
    needed: set[str] = set()
    batches = list(_batches(doomed(wait(store.sessions()), before=before, superseded=superseded, keep=keep)))
    while batches:
        batch = batches.pop(0)
        going: dict[str, SessionInfo] = {}
        for info in batch:
            if info.session_id not in needed and _followers_are_sound(store, info, going):
                going[info.session_id] = info
            elif info.parent is not None and not (superseded and _is_compaction(info)):
                needed.add(info.parent.session_id)  # which would have been deleted after this one
        try:
            went = list(going.values()) if dry_run else wait(store.delete_all(list(going.values())))
        except StoreError as error:
            half = len(batch) // 2
            if not half or not is_of_full_disk(error):
                raise
            batches[:0] = batch[:half], batch[half:]
            continue
        gone += went
        for each in went:
            del going[each.session_id]
        for info in going.values():
            if info.parent is not None and not (superseded and _is_compaction(info)):
                needed.add(info.parent.session_id)
    return gone


def _batches(sessions: Iterable[SessionInfo]) -> Iterator[list[SessionInfo]]:
    """Batches of sessions, in order, each of which is deleted within some milliseconds."""
    batch: list[SessionInfo] = []
    entries = 0
    for info in sessions:
        if batch and (len(batch) == _BATCH or entries + info.head.seq > _ENTRIES):
            yield batch
            batch, entries = [], 0
        batch.append(info)
        entries += info.head.seq
    if batch:
        yield batch


def _children_first(
    sessions: Sequence[SessionInfo], children: Mapping[str, Sequence[SessionInfo]]
) -> Iterator[SessionInfo]:
    """The sessions in an order that depends on no clock, which may have been set back."""
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
    """The sessions that are held; each is looked up only if it could be deleted."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    def __contains__(self, session_id: object) -> bool:
        try:
            return wait(self._store.holder(str(session_id))) is not None
        except SessionNotFound:
            return False


def _followers_are_sound(store: SessionStore, info: SessionInfo, going: Container[str]) -> bool:
    """Whether what a session was compacted into is sound; those that are deleted with it have been
    checked.
    """
    return all(
        sound_prefix(store, follower.session_id)[1] is None
        for follower in wait(store.successors(info.session_id))
        if _is_compaction(follower) and follower.session_id not in going
    )
