"""Replay: folds the entries of a session log into the history and state that they record; pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Raw, Struct

from actors.sessions.activities import still_open
from actors.sessions.approvals import NO_APPROVALS, Approvals
from protocol.delegation import NO_CHILDREN
from protocol.entries import (
    ENTRIES,
    Entry,
    ItemsKept,
    MemoryPointer,
    OtherEntry,
    Parent,
    SessionOpened,
    StoredEntry,
)
from protocol.events import (
    Activity,
    ApprovalRequested,
    ApprovalResolved,
    AssistantMessage,
    ChildEnded,
    ChildStarted,
    DurableEvent,
    PodEnded,
    PodStarted,
    RunEnd,
    RunOutcome,
    RunReason,
    RunStart,
    SystemMessage,
    TierAttempted,
    ToolResulted,
    UserMessage,
)
from protocol.items import AssistantItem, Item, SystemItem, ToolCall, ToolResult, UserItem
from protocol.routing import AttemptRecord
from protocol.text import UNDECODABLE
from protocol.usage import Usage, sum_of
from protocol.wire import LazyDecoder, other_entry

# Nearly all entries of a log are items, and starts and ends of runs. For these, only the fields that replay
# needs are decoded, which makes a restore a tenth faster; the chain vouches for the rest.


class _User(Struct, frozen=True, gc=False, tag=UserMessage.__name__):
    item: UserItem


class _System(Struct, frozen=True, gc=False, tag=SystemMessage.__name__):
    item: SystemItem


class _Result(Struct, frozen=True, gc=False, kw_only=True, tag=ToolResulted.__name__):
    at: float
    run_id: str | None = None
    item: ToolResult


class _Answer(Struct, frozen=True, gc=False, kw_only=True, tag=AssistantMessage.__name__):
    at: float
    run_id: str | None = None
    item: AssistantItem
    stop_reason: str | None = None
    usage: Usage | None = None
    cost: float | None = None


class _RunStart(Struct, frozen=True, gc=False, kw_only=True, tag=RunStart.__name__):
    at: float
    run_id: str | None = None
    reason: RunReason = "run"


class _RunEnd(Struct, frozen=True, gc=False, kw_only=True, tag=RunEnd.__name__):
    outcome: RunOutcome
    seconds: float | None = None


class _PodStarted(Struct, frozen=True, gc=False, tag=PodStarted.__name__):
    pass


class _Opened(
    Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True, tag=SessionOpened.__name__
):
    """The opening of a session that takes nothing over from another. What one may take over has so many types
    that making its decoder takes as long as decoding a thousand entries.
    """

    session_id: str
    seq: int
    at: float
    pod: str
    manifest: Raw


_BRIEF: dict[type, type] = {
    UserMessage: _User,
    SystemMessage: _System,
    ToolResulted: _Result,
    AssistantMessage: _Answer,
    RunStart: _RunStart,
    RunEnd: _RunEnd,
    PodStarted: _PodStarted,
}
#: Entries that carry an item, besides answers.
_OTHER_ITEMS = frozenset({_User, _System, _Result})
#: The usage of a call for which no server reported any.
_UNKNOWN = Usage()
# Making a decoder takes 0.1 ms for each kind that it knows, as much as decoding a hundred entries, and most
# logs have only the usual kinds.
_usual: LazyDecoder[Any] = LazyDecoder(*_BRIEF.values(), _Opened, PodEnded)
_all: LazyDecoder[Any] = LazyDecoder(*(_BRIEF.get(kind, kind) for kind in ENTRIES))


class Replayed:
    """The state that a log records, folded entry by entry.

    ``calls`` are the model calls still in this history, as (items in the request, usage). ``usage`` and
    ``cost`` sum over all calls in the log, and are None if there was none. ``open`` is what was started and
    has no end. ``open_run`` is the id of a run without an end; if it was cut off, its time counts up to the
    last thing that it is known to have done. ``open_attempts`` are the results of the tiers that a chain has
    asked.
    """

    def __init__(self) -> None:
        self.session_id = ""
        self.pod = ""
        self.manifest: Raw | None = None
        self.parent: Parent | None = None
        self.items: list[Item] = []
        self.calls: list[tuple[int, Usage]] = []
        self.pointer: int | None = None
        self.open_run: str | None = None
        self.open_steps = 0
        self.open_attempts: tuple[AttemptRecord, ...] = ()
        self.open: tuple[Activity, ...] = ()
        self.approvals = NO_APPROVALS
        self.children = NO_CHILDREN
        self.cost: float | None = None
        self._answer: _Answer | None = None
        #: The usage of each call, and that carried over from another session.
        self._usages: list[Usage] = []
        self._seconds = 0.0
        #: Start and last known activity of the run whose time is not recorded.
        self._began: float | None = None
        self._worked = 0.0
        self.seq = 0
        self._decoder = _usual

    def read(self, entries: Iterable[StoredEntry]) -> None:
        """Take the next entries as a store returns them. Raises WireError for what is not an entry,
        NewerVersion for an item that only a newer version knows.
        """
        items, decode = self.items, self._decoder.decode
        append, entry = items.append, None
        try:
            for entry in entries:
                try:
                    decoded = decode(entry.body)
                except UNDECODABLE:
                    decoded = self._decode_unusual(entry.body)
                    decode = self._decoder.decode
                kind = type(decoded)
                if kind is _Answer:
                    self._count_answer(decoded, len(items))
                    append(decoded.item)
                elif kind in _OTHER_ITEMS:
                    append(decoded.item)
                    if kind is _Result and decoded.run_id is not None:
                        self._worked = decoded.at
                elif kind is _RunStart:
                    self._begin_run(decoded)
                elif kind is not OtherEntry:
                    self._feed(decoded)
        finally:
            if entry is not None:
                self.seq = entry.seq

    def _decode_unusual(self, body: bytes) -> Any:
        """Decode an entry of a rare kind; from then on all kinds are known. Raises like ``read``."""
        self._decoder = _all
        try:
            return _all.decode(body)
        except UNDECODABLE as error:
            return other_entry(body, error)

    @property
    def usage(self) -> Usage | None:
        """The usage of all calls; None if there was none."""
        return sum_of(self._usages) if self._usages else None

    @property
    def open_answer(self) -> tuple[AssistantItem, str | None] | None:
        """The answer that the open run only has to end with, and why the model stopped there; None if there
        is none.
        """
        answer = self._answer
        if answer is None or answer.run_id is None or answer.run_id != self.open_run:
            return None
        item = answer.item
        whole = item is self.items[-1] and not item.calls and not item.cut
        return (item, answer.stop_reason) if whole else None

    @property
    def seconds(self) -> float:
        """How long the pod's runs took."""
        return self._seconds + self._run_seconds()

    def _run_seconds(self) -> float:
        """How long the run took whose time is not recorded."""
        return 0.0 if self._began is None else max(0.0, self._worked - self._began)

    def carried(self) -> dict[str, Any]:
        """What a session that takes this one's place says in its ``SessionOpened``. Left out are calls that
        were approved, and forms of running tools, which nobody waits for any more.
        """
        return {
            "run_id": self.open_run,
            "steps": self.open_steps,
            "usage": self.usage,
            "cost": self.cost,
            "seconds": self._seconds,
            "run_seconds": self._run_seconds(),
            "open": self.open,
            "waiting": tuple(each for each in self.approvals.open if each.form is None),
            "approval_rules": self.approvals.rules,
            "children": self.children,
        }

    def _count_run(self, seconds: float | None) -> None:
        """Add the time of a run that has ended, in seconds; None if its process ended first."""
        self._seconds = self.seconds if seconds is None else self._seconds + seconds
        self._began = None

    def _begin_run(self, entry: _RunStart) -> None:
        if self._began is not None:
            self._count_run(None)
        self._began = self._worked = entry.at
        if self.approvals.granted:
            self.approvals = self.approvals.begun()
        self.open_run = entry.run_id
        if entry.reason != "resume":
            self.open_steps, self.open_attempts = 0, ()

    def _end_run(self, entry: _RunEnd) -> None:
        self._count_run(entry.seconds)
        if entry.outcome != "paused":
            self.open_run = None

    def _feed(self, entry: Entry | _RunEnd | _PodStarted | _Opened) -> None:
        """Take the next entry, which is not an item."""
        if isinstance(entry, _RunEnd):
            self._end_run(entry)
        elif isinstance(entry, _PodStarted):
            self._count_run(None)
        elif not isinstance(entry, DurableEvent):
            self._bookkeeping(entry)
        elif isinstance(entry, ApprovalRequested | ApprovalResolved):
            self._count_wait(entry)
        elif isinstance(entry, ChildStarted | ChildEnded):
            self.children = self.children.after(entry)
        else:
            self.open = still_open(self.open, entry)
            if isinstance(entry, TierAttempted):
                self.open_attempts = (*self.open_attempts, entry.attempt)
            if entry.counts_usage:
                self._spent(entry.usage, entry.cost)  # type: ignore[attr-defined]

    def _count_wait(self, entry: ApprovalRequested | ApprovalResolved) -> None:
        """Exclude the time in which a call waits for a person. A call approved during a run may
        have begun.
        """
        self.approvals = self.approvals.after(entry)
        if self._began is not None:
            self.approvals = self.approvals.begun()
            if isinstance(entry, ApprovalResolved):
                self._began += max(0.0, entry.at - self._worked)
            self._worked = max(self._worked, entry.at)

    def _count_answer(self, entry: _Answer, before: int) -> None:
        """Count the call that produced an answer, for a request of ``before`` items."""
        usage, self._answer = entry.usage, entry
        if entry.run_id is not None:  # otherwise a program pushed it into the history
            self.open_steps += 1
            self._worked = entry.at
        if usage is not None:
            if not entry.item.cut:  # a cut answer has only estimates
                self.calls.append((before, usage))
            self._usages.append(usage)
        elif entry.run_id is not None:
            self._usages.append(_UNKNOWN)
        if entry.cost is not None:
            self.cost = (self.cost or 0.0) + entry.cost

    def _spent(self, usage: Usage | None, cost: float | None) -> None:
        if usage is not None:
            self._usages.append(usage)
        if cost is not None:
            self.cost = (self.cost or 0.0) + cost

    def _bookkeeping(self, entry: _Opened | SessionOpened | ItemsKept | MemoryPointer) -> None:
        if isinstance(entry, _Opened):
            self.session_id, self.pod, self.manifest = entry.session_id, entry.pod, entry.manifest
        elif isinstance(entry, SessionOpened):
            self.session_id, self.pod, self.manifest = entry.session_id, entry.pod, entry.manifest
            self.parent = entry.parent
            self.open_run, self.open_steps, self.open = entry.run_id, entry.steps, entry.open
            self._usages = [] if entry.usage is None else [entry.usage]
            self.cost, self._seconds = entry.cost, entry.seconds
            self.approvals = Approvals(entry.waiting, (), entry.approval_rules)
            self.children = entry.children
            if entry.run_id is not None:
                self._began, self._worked = entry.at - entry.run_seconds, entry.at
        elif isinstance(entry, ItemsKept):
            self.items.extend(entry.items)
        else:
            self.pointer = entry.pointer


def replay(entries: Iterable[StoredEntry]) -> Replayed:
    """Replay a whole log, whose chain its reader has checked."""
    state = Replayed()
    state.read(entries)
    return state


def open_calls(items: list[Item]) -> list[ToolCall]:
    """The calls of the last assistant item that have no result yet, in order."""
    last = items[-1] if items else None
    if type(last) is not ToolResult:  # only results ever follow a call without one
        return list(last.calls) if type(last) is AssistantItem else []
    answered: list[str] = []
    for item in reversed(items):
        if type(item) is ToolResult:
            answered.append(item.call_id)
        elif type(item) is AssistantItem:
            return [call for call in item.calls if not _answers(answered, call.id)]
    return []


def _answers(answered: list[str], call_id: str) -> bool:
    """Remove one result with that id from ``answered``, if there is one: several calls may share an id."""
    if call_id not in answered:
        return False
    answered.remove(call_id)
    return True
