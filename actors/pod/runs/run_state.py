"""The state of the current run, and the input that waits for it or behind it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from actors.llm.base import StopReason
from actors.pod.accounts.exchange import Exchange
from actors.pod.runs.repeats import Repeats
from actors.runtime.future import AsyncFuture
from actors.runtime.interruptible import Interruptible
from protocol import commands
from protocol.errors import Failure
from protocol.events import RunOutcome, UserSource
from protocol.items import AssistantItem, Item, Part
from protocol.results import RunResult

if TYPE_CHECKING:
    import asyncio

    from actors.pod.resources import PodResources
    from actors.pod.runs.own_options import OwnOptions
    from actors.pod.runs.tool_calls import Sources
    from actors.pod.runs.tool_runner import ToolRunner


class RunHere(commands.Run, frozen=True, gc=True):
    """A run with what only this process knows: ``output``, the type that its answer must be an instance of,
    ``deps`` for its tools, and its ``own`` options.
    """

    output: Any = None
    deps: Any = None
    own: OwnOptions | None = None


class ResumeHere(commands.Resume, frozen=True, gc=True):
    """A resumed run with what only this process knows, as ``RunHere``."""

    output: Any = None
    deps: Any = None
    own: OwnOptions | None = None


class QueuedRun(Struct, frozen=True):
    """A run that waits for its turn."""

    command: commands.Run
    source: UserSource
    reply: AsyncFuture[Any]


class PendingInput(Struct, frozen=True):
    """Words for the current run, which join the history before its next request."""

    content: tuple[Part, ...]
    source: UserSource
    reply: AsyncFuture[Any]


#: Runs that may wait behind the one that goes on.
QUEUE_LIMIT = 32


class RunQueue:
    """The queued runs, and words for the one that begins next. It exists only while a run waits."""

    __slots__ = ("runs", "words")

    def __init__(self, first: QueuedRun) -> None:
        self.runs = deque([first])
        self.words: list[PendingInput] = []

    def is_full(self) -> bool:
        """Whether no more runs may wait."""
        return len(self.runs) >= QUEUE_LIMIT

    def drop(self, wanted: Callable[[QueuedRun], bool]) -> QueuedRun | None:
        """Remove the first run that is ``wanted``; None where none is."""
        for queued in self.runs:
            if wanted(queued):
                self.runs.remove(queued)
                return queued
        return None

    def replies(self) -> list[AsyncFuture[Any]]:
        """The replies of everyone who waits."""
        return [*(queued.reply for queued in self.runs), *(words.reply for words in self.words)]


_NONE: set[str] = set()


class Run:
    """The run that is under way or paused. ``waits`` is the piece of work through which it can be
    interrupted.
    """

    __slots__ = (
        "answer",
        "awaiting_commit",
        "began_at",
        "began_in",
        "caller",
        "deadline",
        "deps",
        "end_seq",
        "ending",
        "error",
        "exchange",
        "has_unseen_input",
        "invalid_outputs",
        "limit",
        "output",
        "output_kind",
        "output_schema",
        "own",
        "own_tools",
        "paused",
        "pauses",
        "pending",
        "repeats",
        "reply",
        "resources",
        "restored",
        "run_id",
        "seconds",
        "start_seq",
        "started_calls",
        "stop_reason",
        "waits",
        "words_seq",
    )

    def __init__(self, run_id: str, caller: Context | None, waits: Interruptible) -> None:
        """``caller`` has the context variables of whoever asked for the run, or last resumed it."""
        self.run_id = run_id
        self.caller = caller
        self.waits = waits
        #: The future of its end; None where nobody waits for that.
        self.reply: AsyncFuture[RunResult] | None = None
        self.output_schema: dict[str, Any] | None = None
        #: What its tools are handed; None where that is what the pod's are.
        self.deps: Any = None
        #: The type that the answer has to be of, the instance once there is one, and how often it was none.
        self.output_kind: Any = None
        self.output: Any = None
        self.invalid_outputs = 0
        #: What it works with in the place of what its pod does; None where that is the same.
        self.own: OwnOptions | None = None
        #: The pod's resources as those options change them, once its first request has needed them; with them
        #: the tools, where it has some of its own.
        self.resources: PodResources | None = None
        self.own_tools: ToolRunner | Sources | None = None
        self.answer: AssistantItem | None = None
        self.stop_reason: StopReason | None = None
        self.ending: RunOutcome | None = None
        self.error: BaseException | None = None
        #: Which limit or budget it has reached.
        self.limit: Failure | None = None
        #: How long it went on up to its last end or pause.
        self.seconds = 0.0
        #: How often in a row the model paused its turn, and its answer when it last did.
        self.pauses = 0
        self.paused: AssistantItem | None = None
        #: Whether the history holds what no answer of the model has followed yet.
        self.has_unseen_input = False
        #: The number of the last words sent to it, 0 until any are recorded; who waits for these is
        #: answered once they are durable.
        self.words_seq = 0
        #: The number of its last start, 0 until that is recorded.
        self.start_seq = 0
        #: The number of its last entry; 0 until that is on its way to the store.
        self.end_seq = 0
        #: Whether all that is known of it is its id, since the session was restored.
        self.restored = False
        #: What its model repeats in vain; None until it calls a tool.
        self.repeats: Repeats | None = None
        #: The request under way.
        self.exchange: Exchange | None = None
        #: ``time.monotonic()`` seconds by which the budget is used up.
        self.deadline: float | None = None
        #: The calls of the last answer that were begun.
        self.started_calls: set[str] = _NONE
        #: The list that the history was when the run began, and its length; None once that is not known.
        self.began_in: list[Item] | None = None
        self.began_at = 0
        self.pending: list[PendingInput] = []
        #: The replies to send once what is recorded for them is durable.
        self.awaiting_commit: list[AsyncFuture[Any]] = []

    @property
    def ended_in_time(self) -> asyncio.Task[Any] | None:
        """The task that ends when the budget of seconds is used up (``awaited``)."""
        return None if self.waits.code is None else self.waits.code.task

    def take_over(self, command: ResumeHere) -> None:
        """Take the options that the run is resumed with."""
        if command.output is not None:
            self.output_kind, self.output_schema = command.output, command.output_schema
            self.invalid_outputs = 0
        if command.deps is not None:
            self.deps = command.deps
        if command.own is not None:
            self.own, self.resources, self.own_tools = command.own.over(self.own), None, None

    def replies_to_words(self) -> list[AsyncFuture[Any]]:
        """The replies that wait for words of this run to become durable."""
        return [*self.awaiting_commit, *(pending.reply for pending in self.pending)]

    def failure(self) -> Failure | None:
        """Why the run failed, or which limit it has reached, as data."""
        return self.limit if self.error is None else Failure.of(self.error)


def new_run_id() -> str:
    """A new id for a run, unique even in a program that seeds ``random``; from any thread."""
    while True:
        try:
            return _new_ids.pop()
        except IndexError:
            numbers = os.urandom(8 * _AT_A_TIME).hex()
            _new_ids.extend([numbers[start : start + 16] for start in range(0, len(numbers), 16)])


#: Ids for runs to come: to ask the system for one takes longer than for sixty-four.
_new_ids: list[str] = []
_AT_A_TIME = 64

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_ids.clear)  # they are the parent's


def resolve(replies: list[AsyncFuture[Any]]) -> None:
    """Answer all replies with None, and empty the list."""
    for reply in replies:
        reply.set(None)
    replies.clear()


def fail(replies: list[AsyncFuture[Any]], error: BaseException) -> None:
    """Answer with ``error`` all replies that are not answered yet."""
    for reply in replies:
        if not reply.done():
            reply.set_exception(error)
