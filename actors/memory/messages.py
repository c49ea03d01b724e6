"""What pods and the two actors of memory say to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:  # these messages travel within a process and are never decoded
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
    """To the pod: of that session, from ``start`` on, items are read up to ``end``; ``last`` stands before
    that.
    """

    session_id: str
    start: int | None
    end: int
    staged: int
    last: Item | None = None
    error: BaseException | None = None


class Extract(Struct, frozen=True, eq=False):
    """To the extraction actor: read what the head has not had read yet, in about ``budget`` tokens; no answer
    of the model takes more than ``max_tokens``; the client sees the context variables of ``caller``.
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
    """To the consolidation actor: do what is due. ``begin`` asks the pod whether that may begin, ``report``
    brings a message to it; the client sees the context variables of ``caller``.
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
    """To the pod: so many files of so many bytes are to be worked in; whether that may begin."""

    files: int
    size: int


class Consolidated(Struct, frozen=True, eq=False):
    """To the pod: a consolidation has ended; of no files if none was due, or another is at it."""

    files: int = 0
    notes: int = 0
    mechanical: bool = False
    left: int = 0
    error: BaseException | None = None
    alerts: tuple[str, ...] = ()
