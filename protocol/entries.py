"""Entries: what a session log is made of.

Every durable event is an entry, stored as the bytes that its subscribers would be sent. Three more
kinds are not events: how a session was opened, which items it took over, and how far memory has read.
An entry's number (``seq``) and hash stand beside its bytes: ``hash = SHA-256(hash before ‖ bytes)``,
where the first entry of a session has 32 zero bytes before it.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Raw, Struct

from protocol.approval import ApprovalRule
from protocol.delegation import NO_CHILDREN, Children
from protocol.events import (
    DURABLE_EVENTS,
    Activity,
    ApprovalRequested,
    DurableEvent,
)
from protocol.items import AssistantItem, SystemItem, ToolResult, UserItem
from protocol.usage import Usage

#: What stands before the first entry of a session.
GENESIS = bytes(32)


class Parent(Struct, frozen=True, gc=False):
    """Where a session comes from: the session, and the entry after which this one continues it."""

    kind: Literal["forked_from", "compacted_from"]
    session_id: str
    at_hash: str
    at_seq: int


class SessionOpened(Struct, frozen=True, gc=False, kw_only=True, tag=True, omit_defaults=True):
    """The first entry of a session. ``manifest`` is what the pod was asked to be, without secrets.

    A session that was compacted in the middle of a run takes over the run, its ``steps`` and the
    ``run_seconds`` it has taken; ``usage``, ``cost`` and ``seconds`` are what the pod had consumed before,
    without that run's time. ``open`` are activities that began in the parent and have not ended there,
    ``waiting`` are its calls that wait for a person's approval, and ``approval_rules`` the rules that people
    have added by answering "always". ``children`` are the pod's sub-agents.
    """

    session_id: str
    seq: int
    at: float
    pod: str
    manifest: Raw
    parent: Parent | None = None
    run_id: str | None = None
    steps: int = 0
    usage: Usage | None = None
    cost: float | None = None
    seconds: float = 0.0
    run_seconds: float = 0.0
    open: tuple[Activity, ...] = ()
    waiting: tuple[ApprovalRequested, ...] = ()
    approval_rules: tuple[ApprovalRule, ...] = ()
    children: Children = NO_CHILDREN


class ItemsKept(Struct, frozen=True, gc=False, kw_only=True, tag=True):
    """Items that a compacted or forked session takes over from its parent; they are not published again."""

    seq: int
    at: float
    items: tuple[UserItem | AssistantItem | SystemItem | ToolResult, ...]


class MemoryPointer(Struct, frozen=True, gc=False, kw_only=True, tag=True, omit_defaults=True):
    """Memory extraction has read the history through its first ``pointer`` items (None: reset)."""

    seq: int
    at: float
    pointer: int | None = None


class OtherEntry(Struct, frozen=True, gc=False):
    """An entry of a kind added by a newer version, which adds no items: readers skip it."""

    kind: str
    seq: int = 0
    at: float = 0.0


Entry = SessionOpened | ItemsKept | MemoryPointer | DurableEvent
ENTRIES: tuple[type[Struct], ...] = (SessionOpened, ItemsKept, MemoryPointer, *DURABLE_EVENTS)


class StoredEntry(Struct, frozen=True, gc=False):
    """An entry as a store keeps it: its number, its hash and its bytes, never re-encoded."""

    seq: int
    hash: bytes
    body: bytes


class Head(Struct, frozen=True, gc=False):
    """The end of a session: the number and the hash of its last entry."""

    seq: int
    hash: bytes
