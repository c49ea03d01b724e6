"""The lines that ``--json`` prints which are not events: their members, as the schema has them."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Raw, Struct, UnsetType

from actors.sessions.store import Holder
from protocol.entries import Parent
from protocol.errors import Failure
from protocol.events import RunOutcome
from protocol.manifest import PodManifest
from protocol.usage import Usage


class RunLine(Struct, frozen=True, tag="RunResult", kw_only=True):
    """How a run ended, the last line of ``run``, ``chat`` and ``resume``.

    A run that failed has an ``error``, and no text, usage or output; its ids are null where it never began.
    ``output`` is an answer that fits ``--schema``, null where none was asked for.
    """

    text: str | UnsetType = UNSET
    outcome: RunOutcome
    usage: Usage | UnsetType = UNSET
    run_id: str | None
    session_id: str | None
    output: Any = UNSET
    cost: float | UnsetType | None = UNSET
    steps: int | UnsetType = UNSET
    seconds: float | UnsetType = UNSET
    limit: Failure | UnsetType | None = UNSET
    error: Failure | UnsetType = UNSET


class SessionFacts(Struct, frozen=True, kw_only=True):
    """A session: ``seq`` and ``head`` are the number and the hash of its last entry; times are seconds since
    the epoch.
    """

    session_id: str
    pod: str
    created_at: float
    updated_at: float
    seq: int
    head: str
    parent: Parent | None


class SessionRow(SessionFacts, frozen=True, kw_only=True):
    """A line of ``ps``.

    ``last_run`` is the outcome of the last run, ``open`` where it has no end, ``none`` where there was none,
    ``unreadable`` where the entry that says so is damaged; ``holder`` the process that has the session,
    ``waiting`` how many of its calls wait for approval; ``cost`` is in US dollars, null where nobody knows
    it. ``unconfined`` are its MCP servers and, of an agent, the program of others that it is: nothing
    confines these.
    """

    last_run: str
    holder: Holder | None
    waiting: int
    task: str
    folder: str
    model: str
    cost: float | None
    unconfined: tuple[str, ...]


class SessionShown(SessionFacts, frozen=True, kw_only=True):
    """What ``show`` prints. ``items`` is how many the history has, ``answer`` the model's last words."""

    last_run: str
    holder: Holder | None
    waiting: int
    usage: Usage
    cost: float | None
    seconds: float
    items: int
    manifest: PodManifest
    answer: str | None


class LogRow(Struct, frozen=True):
    """A line of ``log``: an entry as it is kept, which the schema describes as ``entry``."""

    seq: int
    hash: str
    entry: Raw


class TreeRow(SessionFacts, frozen=True, kw_only=True):
    """A line of ``log --tree``: how deep below the first session it is."""

    depth: int


class NewSession(Struct, frozen=True):
    """A session that was made, or deleted."""

    session_id: str
    pod: str
    parent: Parent | None


class WaitingCall(Struct, frozen=True):
    """A line of ``approvals``."""

    approval_id: str
    session_id: str
    pod: str
    tool: str
    arguments: dict[str, Any]
    why: str | None
    at: float
    timeout: float | None
    holder: Holder | None


class NoteRow(Struct, frozen=True, kw_only=True):
    """A line of ``memory list``, and with its ``body`` what ``memory show`` prints."""

    path: str
    kind: str
    title: str
    created: str
    updated: str
    sources: tuple[str, ...]
    body: str | UnsetType = UNSET


class ModelRow(Struct, frozen=True):
    """A line of ``models``: the name that ``--model`` takes, where its server is, and what is to be known."""

    name: str
    base_url: str | None = None
    note: str = ""
