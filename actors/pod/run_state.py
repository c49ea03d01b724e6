"""The state of the current run, and of the input that waits for it or behind it."""

from __future__ import annotations

import random
from contextvars import Context
from typing import Any

from msgspec import Struct

from actors.llm.base import StopReason
from actors.pod.exchange import Exchange
from actors.pod.repeats import Repeats
from actors.runtime.future import AsyncFuture
from actors.runtime.interruptible import Interruptible
from protocol import commands
from protocol.errors import Failure
from protocol.events import RunOutcome, UserSource
from protocol.items import AssistantItem, Item, Part
from protocol.results import RunResult


class RunHere(commands.Run, frozen=True, gc=True):
    """A run with what only this process knows: the type ``output`` that its answer has to be an instance of,
    and ``deps`` that its tools are handed.
    """

    output: Any = None
    deps: Any = None


class QueuedRun(Struct, frozen=True):
    """A run that waits for its turn."""

    command: commands.Run
    source: UserSource
    reply: AsyncFuture[Any]


class PendingInput(Struct, frozen=True):
    """Words for the run that goes on, which join the history before its next request."""

    content: tuple[Part, ...]
    source: UserSource
    reply: AsyncFuture[Any]


_NONE: set[str] = set()


class Run:
    """The run that goes on, or is paused. ``waits`` is how far it can be interrupted."""

    # What most runs never set stands in the class, so that a run costs little to begin.

    #: Who hears of its end.
    reply: AsyncFuture[RunResult] | None = None
    output_schema: dict[str, Any] | None = None
    #: What its tools are handed; None where that is what the pod's are.
    deps: Any = None
    #: The type that the answer has to be of, the instance once there is one, and how often it was none.
    output_kind: Any = None
    output: Any = None
    invalid_outputs = 0
    answer: AssistantItem | None = None
    stop_reason: StopReason | None = None
    ending: RunOutcome | None = None
    error: BaseException | None = None
    #: Which limit or budget it has reached.
    limit: Failure | None = None
    #: How often in a row the model paused its turn, and its answer when it last did.
    pauses = 0
    paused: AssistantItem | None = None
    #: Whether the history holds what no answer of the model has followed yet.
    has_unseen_input = False
    #: The number of the last words that it was told, 0 until any are recorded; who waits for these is
    #: answered once they are durable.
    words_seq = 0
    #: The number of its last entry; 0 until that is on its way to the store.
    end_seq = 0
    #: Whether all that is known of it is its id, since the session was restored.
    restored = False
    #: What its model repeats in vain; None until it calls a tool.
    repeats: Repeats | None = None
    #: The request under way.
    exchange: Exchange | None = None
    #: ``time.monotonic()`` seconds by which the budget is used up.
    deadline: float | None = None
    #: The calls of the last answer that were begun.
    started_calls: set[str] = _NONE
    #: The list that the history was when the run began, and its length; None once that is not known.
    began_in: list[Item] | None = None
    began_at = 0

    def __init__(self, run_id: str, caller: Context | None, waits: Interruptible) -> None:
        """``caller`` has the context variables of who asked for the run, or last resumed it."""
        self.run_id = run_id
        self.caller = caller
        self.waits = waits
        self.pending: list[PendingInput] = []
        #: Who is told once what is recorded for them is durable.
        self.awaiting_commit: list[AsyncFuture[Any]] = []

    @property
    def failure(self) -> Failure | None:
        """Why the run failed, or which limit it has reached, as data."""
        return self.limit if self.error is None else Failure.of(self.error)


def new_run_id() -> str:
    """An id for a run, unique for all practical ends."""
    return f"{random.getrandbits(64):016x}"


def resolve(replies: list[AsyncFuture[Any]]) -> None:
    """Answer all who wait that it is done, once."""
    for reply in replies:
        reply.set(None)
    replies.clear()
