"""``SessionLog``: writes one session's log: append, hash-chain, commit, then publish."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from msgspec import Raw, Struct
from msgspec.structs import replace

from actors.runtime.in_thread import in_thread
from actors.sessions.activities import still_open
from actors.sessions.answers import OF_DRIVERS, Kept, durable, store_failure
from actors.sessions.chain import chained, head_of, new_hash
from actors.sessions.head import SessionHead
from actors.sessions.store import SessionStore
from protocol.entries import (
    GENESIS,
    Head,
    ItemsKept,
    MemoryPointer,
    Parent,
    SessionOpened,
    StoredEntry,
)
from protocol.events import Activity, DurableEvent, Event, ExtractDone, RunEnd, RunStart, SessionForked
from protocol.items import Item
from protocol.recordable import UNFIT, recordable
from protocol.wire import encode

#: Bytes of an entry that take a millisecond to hash; it is then hashed in a thread.
LONG = 1 << 20


class Mark(Struct, frozen=True, gc=False):
    """A position at the end of a log: its last entry, number of items and state there."""

    seq: int
    hash: bytes
    length: int
    pointer: int | None
    open_run: str | None
    open: tuple[Activity, ...]


def _mark(head: SessionHead) -> Mark:
    return Mark(head.seq, head.hash, len(head.items), head.pointer, head.open_run, head.open)


#: The mark at the end of every new log.
_NOTHING_YET = _mark(SessionHead(""))


class _Batch(Struct):
    """Entries that go to the store together, and events that are published once they are durable."""

    entries: list[StoredEntry]
    events: list[Event]


class SessionLog:
    """One pod's session: its only writer, with a tentative head (``head``) and a durable one.

    ``record`` adds to the tentative end. ``commit`` makes all of it durable, and then publishes its events.
    If the store refuses, the log returns to what is durable, and the rest is never published.
    """

    __slots__ = (
        "_before",
        "_durable",
        "_ends",
        "_has_long",
        "_publish",
        "_staged",
        "_store",
        "_under_way",
        "_unsaved",
        "head",
        "pod",
    )

    def __init__(
        self, store: SessionStore, pod: str, head: SessionHead, publish: Callable[..., None]
    ) -> None:
        self._store = store
        #: Called with the events that can be published now, in order, and the entries with the bytes of the
        #: durable ones.
        self._publish = publish
        self.pod = pod
        self.head = head
        self._before: tuple[str, list[Item]] | None = None
        self._unsaved: Sequence[Event] = ()
        self._staged: _Batch | None = None
        #: Whether a long entry is staged, which is hashed with its batch: until then later hashes are not
        #: valid.
        self._has_long = False
        #: Staged ends: see ``record_end``.
        self._ends: list[Event] | None = None
        #: The batch given to the store, the end of the log with it, and the ends in it.
        self._under_way: tuple[_Batch, Mark, list[Event] | None] | None = None
        self._durable = _mark(head) if head.seq else _NOTHING_YET

    def stand_at(
        self,
        session_id: str,
        last: Head,
        items: list[Item],
        pointer: int | None,
        open_run: str | None,
        activities: tuple[Activity, ...] = (),
    ) -> None:
        """Continue at the end of a session that was read back, with these ``activities`` open."""
        head = self.head
        head.session_id, head.seq, head.hash = session_id, last.seq, last.hash
        head.items, head.pointer, head.open_run, head.open = items, pointer, open_run, activities
        self._durable = _mark(head)

    def drop_items(self) -> None:
        """Keep the history only in the store; nothing may be staged. ``stand_at`` restores it."""
        self.head.items, self._unsaved = [], ()

    # -- what is kept --------------------------------------------------------------------------

    @property
    def durable_seq(self) -> int:
        """The number of the last durable entry; transient events carry it."""
        return self._durable.seq

    @property
    def durable_hash(self) -> bytes:
        """The hash of the last durable entry."""
        return self._durable.hash

    @property
    def durable_pointer(self) -> int | None:
        """How far memory has read, according to what is durable."""
        return self._durable.pointer

    @property
    def durable_open(self) -> tuple[tuple[Activity, ...], str | None]:
        """The activities and the run that are open, according to what is durable."""
        return self._durable.open, self._durable.open_run

    @property
    def durable_session(self) -> str:
        """The durable session; while a successor is being created, still the old one."""
        return self.head.session_id if self._before is None else self._before[0]

    def durable_items(self) -> list[Item]:
        """The durable history, as a new list."""
        items = self.head.items if self._before is None else self._before[1]
        return items[: self._durable.length]

    def is_clean(self) -> bool:
        """Whether nothing is staged."""
        return self._staged is None

    # -- staging -------------------------------------------------------------------------------

    def record(self, kind: type[DurableEvent], run_id: str | None = None, **fields: Any) -> None:
        """Make an event of ``kind`` at the tentative end and add it."""
        head = self.head
        self.add(kind(self.pod, head.session_id, head.seq + 1, time.time(), run_id, **fields))

    def add(self, event: DurableEvent) -> None:
        """Add an event's entry at the tentative end; the event must have the next number. An item that it
        carries joins the history. For what happens in every turn: ``record`` takes three times as long to
        make an event as a call with the fields' names.
        """
        head = self.head
        try:
            body = encode(event)
        except UNFIT:
            event = recordable(event)
            body = encode(event)
        entry, staged = self._chain(body), self._staged
        if staged is None:
            self._staged = _Batch([entry], [event])
        else:
            staged.entries.append(entry)
            staged.events.append(event)
        kind = type(event)
        if kind is RunStart:
            head.open_run = event.run_id
        elif kind is RunEnd:
            if event.outcome != "paused":  # type: ignore[attr-defined]
                head.open_run = None
        elif kind.carries_item:
            head.items.append(event.item)  # type: ignore[attr-defined]
        else:
            head.open = still_open(head.open, event)

    def record_end(self, kind: type[DurableEvent], run_id: str | None = None, **fields: Any) -> None:
        """Record the end of something whose start may already be published. If the store refuses it,
        ``restage`` records it again, so that it is published with the next batch that the store accepts.
        """
        self.record(kind, run_id, **fields)
        assert self._staged is not None
        self._ends = [*(self._ends or ()), self._staged.events[-1]]

    def restage(self) -> None:
        """After a refused batch, record again the ends in it of whatever is still open."""
        ends, self._ends = self._ends or (), None
        for event in ends:
            assert isinstance(event, DurableEvent)
            head = self.head
            if event.owed or (event.ends in head.open if event.ends else event.run_id == head.open_run):
                self.record_end(type(event), event.run_id, **_own_fields(event))

    def publish_transient(self, event: Event) -> None:
        """Publish a transient event, after the durable ones that were recorded before it."""
        if self._staged is not None:
            self._staged.events.append(event)
        elif self._under_way is not None:
            self._under_way[0].events.append(event)
        else:
            self._publish((event,))

    def open(self, manifest: Raw, parent: Parent | None = None, **carried: Any) -> None:
        """Add the first entry of a new session; ``carried`` is what it takes over besides items."""
        head = self.head
        opened = SessionOpened(
            session_id=head.session_id,
            seq=head.seq + 1,
            at=time.time(),
            pod=self.pod,
            manifest=manifest,
            parent=parent,
            **carried,
        )
        self._stage(encode(opened))

    def append_items(self, items: list[Item]) -> None:
        """Add items taken over from another session; they are not published again."""
        head = self.head
        self._stage(encode(ItemsKept(seq=head.seq + 1, at=time.time(), items=tuple(items))))
        head.items.extend(items)

    def append_pointer(self, pointer: int | None) -> None:
        """Add how far memory has read."""
        head = self.head
        self._stage(encode(MemoryPointer(seq=head.seq + 1, at=time.time(), pointer=pointer)))
        head.pointer = pointer

    def _stage(self, body: bytes) -> None:
        """Add an encoded entry at the tentative end, which is not published."""
        entry = self._chain(body)
        if self._staged is None:
            self._staged = _Batch([entry], [])
        else:
            self._staged.entries.append(entry)

    def _chain(self, body: bytes) -> StoredEntry:
        """Chain the next entry, and move the tentative end."""
        head = self.head
        seq = head.seq = head.seq + 1
        if len(body) < LONG or asyncio._get_running_loop() is None:  # noqa: SLF001 - documented
            hashing = new_hash()  # ``link`` inlined
            hashing.update(head.hash)
            hashing.update(body)
            hash_ = head.hash = hashing.digest()
        else:
            self._has_long, hash_ = True, head.hash
        return StoredEntry(seq, hash_, body)

    # -- committing ----------------------------------------------------------------------------

    def create(self, parent: Parent | None = None, *, claim: bool = True) -> Kept:
        """Create the session with everything staged. Returns None, or what resolves when it is durable.

        It is claimed for this writer unless ``claim`` is false. Raises StoreError, like ``commit``.
        """
        session_id, batch = self.head.session_id, self._hand_over()
        if self._has_long:
            give = partial(self._store.create, session_id, self.pod, parent, claim=claim)
            return self._hash_and_give(Head(batch[0].seq - 1, GENESIS), give)
        try:
            pending = self._store.create(session_id, self.pod, parent, batch, claim=claim)
        except OF_DRIVERS as error:
            self.roll_back()
            raise store_failure(error) from error.__cause__
        if pending is None:
            self.confirm()
        return pending

    def start_successor(self, session_id: str) -> Parent:
        """Continue in a new session that takes this one's place: what is recorded from here to ``create`` are
        its first entries. Everything before must be durable. Until ``create`` has succeeded, ``roll_back``
        returns to the old session.
        """
        head = self.head
        assert self.is_clean()
        parent = Parent("compacted_from", head.session_id, head.hash.hex(), head.seq)
        self._before = (head.session_id, head.items)
        head.session_id, head.hash, head.items, head.pointer = session_id, GENESIS, [], None
        return parent

    def commit(self) -> Kept:
        """Make everything staged durable. Returns None if it is, or what resolves when it will be.

        Raises StoreError or HeadConflict, after rolling back to what is durable. If it returns a future, call
        ``confirm`` or ``roll_back`` on the loop, according to the result, before the next commit.
        """
        if self._staged is None:
            return None
        durable = self._durable
        after, batch = Head(durable.seq, durable.hash), self._hand_over()
        if self._has_long:
            return self._hash_and_give(after, partial(self._store.append, self.head.session_id, after))
        try:
            pending = self._store.append(self.head.session_id, after, batch)
        except OF_DRIVERS as error:
            self.roll_back()
            raise store_failure(error) from error.__cause__
        if pending is None:
            self.confirm()
        return pending

    def _hand_over(self) -> list[StoredEntry]:
        """Take what is staged, to give it to the store."""
        batch = self._staged
        assert batch is not None
        self._under_way = (batch, _mark(self.head), self._ends)
        self._staged = self._ends = None
        return batch.entries

    def _hash_and_give(self, after: Head, give: Callable[[list[StoredEntry]], Kept]) -> Kept:
        """Hash what was handed over in a thread, and give it to the store."""
        assert self._under_way is not None
        self._has_long = False
        return self._give_hashed(self._under_way[0], after, give)

    async def _give_hashed(
        self, batch: _Batch, after: Head, give: Callable[[list[StoredEntry]], Kept]
    ) -> None:
        batch.entries = await in_thread(chained, [each.body for each in batch.entries], after=after)
        last = head_of(batch.entries)
        assert self._under_way is not None
        _, mark, ends = self._under_way
        self._under_way = (batch, replace(mark, hash=last.hash), ends)
        self._chain_anew(last)
        kept = give(batch.entries)
        if kept is not None:
            await durable(kept)

    def _chain_anew(self, after: Head) -> None:
        """Chain what was staged while the hash before it was not known."""
        head = self.head
        head.hash = after.hash
        if self._staged is not None:
            head.seq = after.seq
            self._staged.entries = [self._chain(entry.body) for entry in self._staged.entries]

    def confirm(self) -> None:
        """Publish the events of the batch given to the store, which is now durable."""
        assert self._under_way is not None
        batch, self._durable, _ = self._under_way
        self._under_way = self._before = None
        self._unsaved = ()
        self._publish(batch.events, batch.entries)

    def branch(self, session_id: str, opening: Raw, reason: str, **carried: Any) -> Kept:
        """Continue in a new session after the durable head, with the events that the store refused last.

        For a writer whose session was taken by another. ``carried`` has the pod's usage, cost and seconds
        including those events. Returns and raises like ``create``.
        """
        head, unsaved = self.head, self._unsaved
        parent = Parent("forked_from", head.session_id, head.hash.hex(), head.seq)
        old, items, pointer = head.session_id, head.items, head.pointer
        self._before = (old, items)
        head.session_id, head.hash, head.items, head.pointer = session_id, GENESIS, [], None
        self.open(opening, parent, run_id=head.open_run, open=head.open, **_without_unsaved(carried, unsaved))
        if items:
            self.append_items(items)
        if pointer is not None:
            self.append_pointer(pointer)
        self.record(SessionForked, new_session_id=session_id, at_hash=parent.at_hash, reason=reason)
        for event in unsaved:
            if isinstance(event, ExtractDone):  # its entry went before it
                self.append_pointer(event.pointer)
            if isinstance(event, DurableEvent):
                self.record(type(event), event.run_id, **_own_fields(event))
        return self.create(parent)

    def roll_back(self) -> None:
        """Drop everything that is not durable, and return to the state of the store."""
        head = self.head
        unsaved: list[Event] = []
        if self._under_way is not None:
            batch, _, ends = self._under_way
            unsaved += batch.events
            if ends is not None:
                self._ends = [*ends, *(self._ends or ())]
        if self._staged is not None:
            unsaved += self._staged.events
        self._unsaved, self._under_way, self._staged = unsaved, None, None
        self._has_long = False
        if self._before is not None:
            head.session_id, head.items = self._before
            self._before = None
        durable = self._durable
        head.seq, head.hash = durable.seq, durable.hash
        head.pointer, head.open_run, head.open = durable.pointer, durable.open_run, durable.open
        del head.items[durable.length :]
        for event in self._unsaved:  # transient events are true in any case
            if not event.durable:
                self._publish((replace(event, session_id=head.session_id, seq=head.seq),))


_COMMON = frozenset(DurableEvent.__struct_fields__)


def _without_unsaved(carried: dict[str, Any], unsaved: Sequence[Event]) -> dict[str, Any]:
    """What a branch takes over: usage, cost and time without what its own events will add."""
    usage, cost, seconds = carried.get("usage"), carried.get("cost"), carried.get("seconds", 0.0)
    for event in unsaved:
        if isinstance(event, RunEnd):
            seconds -= event.seconds or 0.0
        if not event.counts_usage:
            continue
        fields = _own_fields(event)
        if usage is not None and fields["usage"] is not None:
            usage = usage.without(fields["usage"])
        if cost is not None and fields["cost"] is not None:
            cost -= fields["cost"]
    return {**carried, "usage": usage, "cost": cost, "seconds": seconds}


def _own_fields(event: Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__ if name not in _COMMON}
