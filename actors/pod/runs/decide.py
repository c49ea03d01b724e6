"""What a run does next, decided from its state; pure."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Literal, final

from msgspec import Struct

from actors.compaction.policy import THRASH, Verdict
from actors.llm.base import StopReason
from protocol.events import RunOutcome
from protocol.items import AssistantItem, ToolCall


class TurnState(Struct, frozen=True, gc=False):
    """The state of a run between two steps.

    ``ending`` is the outcome that a command asks for, ``answer`` the model's last answer in this run with its
    ``stop_reason``, ``open_calls`` its calls without results, ``started_calls`` the ids of those that were
    begun, ``pending`` whether somebody said something that the model has not seen, ``fullness`` what the
    compaction policy says of a request.
    """

    ending: RunOutcome | None
    answer: AssistantItem | None
    stop_reason: StopReason | None
    open_calls: list[ToolCall]
    pending: bool
    steps: int
    max_steps: int
    fullness: Verdict
    started_calls: AbstractSet[str] = frozenset()


@final
class CallModel(Struct, frozen=True, gc=False):
    """Send the history to the model."""


@final
class RunTools(Struct, frozen=True):
    """Run these calls; their results join the history in this order."""

    calls: list[ToolCall]


class CloseCalls(Struct, frozen=True):
    """Give these calls a result: they were begun and have none, so nobody knows their outcome, and they are
    not run again.
    """

    calls: list[ToolCall]


class AwaitAnswer(Struct, frozen=True):
    """Wait: all calls that have no result need a person's approval."""

    calls: list[ToolCall]


class Compact(Struct, frozen=True, gc=False):
    """Fold the history, then go on with the same request."""


@final
class Finish(Struct, frozen=True, gc=False):
    """The run is over. ``why`` says why if it failed, ``limit`` which limit it reached if that is its
    outcome.
    """

    outcome: RunOutcome
    why: str | None = None
    limit: Literal["max_tokens", "max_steps"] | None = None


CALL_MODEL = CallModel()
COMPACT = Compact()
FINISHED = Finish("finished")
REFUSED = Finish("refused")

Step = CallModel | RunTools | CloseCalls | Compact | Finish


def next_step(at: TurnState) -> Step:
    """What a run does next. A call that was begun is never begun again, unless the model makes it again."""
    if at.ending is not None:
        return Finish(at.ending)
    if at.open_calls:
        begun = [call for call in at.open_calls if call.id in at.started_calls]
        return CloseCalls(begun) if begun else RunTools(at.open_calls)
    if at.answer is not None and not at.pending and not at.answer.calls and at.stop_reason != "pause":
        return _answered(at.answer, at.stop_reason)
    if at.steps >= at.max_steps:
        return Finish("limit_reached", limit="max_steps")
    if at.fullness == "thrash":
        return Finish("failed", THRASH)
    return COMPACT if at.fullness == "compact" else CALL_MODEL


def of_calls(step: RunTools, awaited: AbstractSet[str]) -> RunTools | AwaitAnswer:
    """Which calls of ``step`` to run while those whose ids are ``awaited`` wait for approval: the others
    first; if there are none, the step is to wait.
    """
    ready = [call for call in step.calls if call.id not in awaited]
    return RunTools(ready) if ready else AwaitAnswer(step.calls)


def _answered(answer: AssistantItem, stop_reason: StopReason | None) -> Finish:
    """How a run ends with this answer."""
    if answer.refused:
        return REFUSED
    return FINISHED if stop_reason != "max_tokens" else Finish("limit_reached", limit="max_tokens")
