"""The writes of a SQLite store as jobs: append entries to a session, create a session, release a claim."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from actors.sessions.committer import Job
from protocol.entries import GENESIS, Head, Parent, StoredEntry


class Held:
    """A session that this store may write to: its row, its claim, its durable head, and the last row of its
    entries.

    ``writer`` is None for a session that is created for others; ``row`` and ``last`` are None until it is
    created. ``seen`` is the version of the data in which ``last`` was that; None if unknown. ``queued`` and
    ``finished`` count jobs of the writer thread, the first on the caller's thread, the second on the
    writer's; ``gathered`` counts those that wait for the end of the loop's turn.
    """

    __slots__ = (
        "finished",
        "gathered",
        "generation",
        "head",
        "last",
        "pod",
        "queued",
        "row",
        "seen",
        "session_id",
        "since",
        "writer",
    )

    def __init__(self, session_id: str, pod: str, writer: str | None, since: float) -> None:
        self.session_id = session_id
        self.pod = pod
        self.writer = writer
        self.since = since
        self.generation = 1
        self.row: int | None = None
        self.head = Head(0, GENESIS)
        self.last: int | None = None
        self.seen: tuple[int, int] | None = None
        self.queued = self.finished = self.gathered = 0


class Append(Job):
    """Adds entries to a held session."""

    __slots__ = ("after", "at", "batch", "held")

    def __init__(self, held: Held, after: Head, batch: Sequence[StoredEntry]) -> None:
        super().__init__(sum([len(entry.body) for entry in batch]))
        self.held = held
        self.after = after
        self.batch = batch
        self.at = time.time()

    def finish(self, error: BaseException | None = None) -> None:
        self.held.finished += 1
        super().finish(error)


class Create(Append):
    """Creates a session with its first entries. If that fails, ``refused`` is called before anybody sees it,
    since they may create it again at once.
    """

    __slots__ = ("parent", "pod", "refused")

    def __init__(
        self,
        held: Held,
        pod: str,
        parent: Parent | None,
        batch: Sequence[StoredEntry],
        refused: Callable[[], object] | None = None,
    ) -> None:
        held.head = Head(batch[0].seq - 1, GENESIS)
        super().__init__(held, held.head, batch)
        self.pod = pod
        self.parent = parent
        self.refused = refused

    def resolve(self, error: BaseException | None = None) -> None:
        if error is not None and self.refused is not None:
            self.refused()
        super().resolve(error)

    def values(self) -> tuple[Any, ...]:
        """The row of the session."""
        held, parent = self.held, self.parent
        origin: tuple[Any, ...] = (None, None, None, None)
        if parent is not None:
            origin = (parent.kind, parent.session_id, parent.at_hash, parent.at_seq)
        claim = (None, None, None) if held.writer is None else (held.writer, held.pod, held.since)
        return (held.row, held.session_id, self.pod, self.at, *origin, held.generation, *claim)


class Release(Append):
    """Ends a claim."""

    __slots__ = ()

    def __init__(self, held: Held) -> None:
        super().__init__(held, held.head, ())
