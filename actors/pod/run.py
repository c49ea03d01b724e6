"""What a pod knows of the run that goes on, and of what waits for it."""

from __future__ import annotations

import random
import time
from typing import Any, NamedTuple

from actors.llm.base import StopReason
from actors.pod.budget import Reservation
from actors.runtime.future import AsyncFuture
from protocol.commands import Run
from protocol.errors import Failure
from protocol.events import RunOutcome, UserSource
from protocol.items import AssistantItem, Part
from protocol.results import RunResult
from protocol.usage import Usage


class TypedRun(Run, frozen=True):
    """A run, sent within this process, whose answer has to be an instance of ``output``."""

    output: Any = None


class QueuedRun(NamedTuple):
    """A run that waits for its turn."""

    command: Run
    source: UserSource
    reply: AsyncFuture[Any]


class PendingInput(NamedTuple):
    """Words for the run that goes on, which join the history before its next request."""

    content: tuple[Part, ...]
    source: UserSource
    reply: AsyncFuture[Any]


class RunState:
    """The run that goes on, or is paused."""

    __slots__ = (
        "answer",
        "deadline",
        "ending",
        "error",
        "held",
        "misfits",
        "output",
        "output_kind",
        "output_schema",
        "pending",
        "reply",
        "run_id",
        "started_at",
        "started_calls",
        "steps",
        "stop_reason",
        "unheard",
        "unlogged",
        "usage",
    )

    def __init__(self, run_id: str, reply: AsyncFuture[RunResult] | None) -> None:
        self.run_id = run_id
        self.reply = reply
        self.output_schema: dict[str, Any] | None = None
        #: The type that the answer has to be of, the instance once there is one, and how often it was none.
        self.output_kind: Any = None
        self.output: Any = None
        self.misfits = 0
        self.steps = 0
        self.usage: Usage | None = None
        self.answer: AssistantItem | None = None
        self.stop_reason: StopReason | None = None
        self.ending: RunOutcome | None = None
        self.error: BaseException | None = None
        self.pending: list[PendingInput] = []
        #: Whether the history holds what no answer of the model has followed yet.
        self.unheard = False
        #: Who is told once what is recorded for them is durable.
        self.unlogged: list[AsyncFuture[Any]] = []
        self.started_calls: set[str] = set()
        self.held: Reservation | None = None
        #: ``time.monotonic()`` seconds by which the budget is used up.
        self.deadline: float | None = None
        self.started_at = time.monotonic()

    @property
    def failure(self) -> Failure | None:
        """Why the run failed, as data."""
        return None if self.error is None else Failure.of(self.error)


def new_run_id() -> str:
    """An id for a run, unique for all practical ends."""
    return f"{random.getrandbits(64):016x}"


def resolve(replies: list[AsyncFuture[Any]]) -> None:
    """Answer all who wait that it is done, once."""
    for reply in replies:
        reply.set(None)
    replies.clear()
