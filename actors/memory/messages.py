"""The messages between pods and the two memory actors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:  # these messages stay within a process and are never decoded
    from collections.abc import Callable
    from contextvars import Context
    from pathlib import Path
    from typing import Any

    from actors.memory.helper_agent import Ask
    from actors.memory.notes_folder import NotesFolder
    from actors.runtime.future import AsyncFuture
    from actors.sessions.head import SessionHead
    from actors.tools.base import ToolContext
    from protocol.items import Item
    from protocol.manifest import PodManifest


class Proposal(Struct, frozen=True, eq=False):
    """To the pod: in that session, items are read from ``start`` up to ``end``; ``last`` is the item before
    that.
    """

    session_id: str
    start: int | None
    end: int
    staged: int
    last: Item | None = None
    error: BaseException | None = None


class Extract(Struct, frozen=True, eq=False):
    """To the extraction actor: read what the head shows as not yet read, in about ``budget`` tokens. No
    answer of the model takes more than ``max_tokens``. The client sees the context variables of ``caller``.
    """

    head: SessionHead
    budget: int
    max_tokens: int
    ask: Ask
    model: str
    context: Callable[[Any], ToolContext]
    folder: Path
    propose: Callable[[Proposal], AsyncFuture[bool]]
    caller: Context | None = None


class Consolidate(Struct, frozen=True, eq=False):
    """To the consolidation actor: consolidate what is due. ``begin`` asks the pod whether that may begin,
    ``report`` sends it a message. The client sees the context variables of ``caller``.
    """

    memory: NotesFolder
    manifest: PodManifest
    ask: Ask
    context: Callable[[Any], ToolContext]
    automatic: bool
    begin: Callable[[Consolidating], AsyncFuture[bool]]
    report: Callable[[Consolidated], None]
    caller: Context | None = None


class Consolidating(Struct, frozen=True, eq=False):
    """To the pod: so many files of so many bytes are to be consolidated; it answers whether that
    may begin.
    """

    files: int
    size: int


class Consolidated(Struct, frozen=True, eq=False):
    """To the pod: a consolidation has ended, with no files if none was due, or another process is at work."""

    files: int = 0
    notes: int = 0
    mechanical: bool = False
    left: int = 0
    error: BaseException | None = None
    alerts: tuple[str, ...] = ()
