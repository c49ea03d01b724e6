"""Events: what a pod publishes: durable ones (each an entry of the session log) and transient ones.

A durable event is published only after its entry is committed; ``seq`` is that entry's number, which
a compacted or forked session continues. A transient event carries the last durable ``seq``.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

from msgspec import Struct

from protocol import errors
from protocol.approval import ApprovalRule
from protocol.errors import Failure
from protocol.items import AssistantItem, SystemItem, ToolResult, UserItem
from protocol.lifecycle import PodState
from protocol.manifest import BudgetSection
from protocol.routing import AttemptRecord
from protocol.scope import Scope
from protocol.usage import Usage

RunOutcome = Literal["finished", "refused", "paused", "limit_reached", "cancelled", "budget", "failed"]
RunReason = Literal["run", "notify", "resume"]
UserSource = Literal["run", "steer", "notify", "push"]
CompactReason = Literal["threshold", "request_threshold", "overflow", "manual"]
SummarySource = Literal["tool", "words", "extractive"]
#: Why an agent ended: its program did by itself (``exit``), its task was cancelled, it was asked to
#: (``shutdown``), nobody could send to it any more (``inbox_closed``), nobody did for too
#: long (``idle``), or it was killed.
AgentStopReason = Literal["exit", "cancelled", "shutdown", "inbox_closed", "idle", "killed"]
AgentStream = Literal["stdout", "stderr"]
#: What has a start that is published, and then exactly one end: done or failed.
Activity = Literal["compaction", "extraction", "consolidation"]


class Event(Struct, frozen=True, gc=False, tag=True, omit_defaults=True):
    """What all events have.

    ``at`` is seconds since the epoch, UTC. ``run_id`` is None outside a run.
    """

    durable: ClassVar[bool] = False
    #: Whether the event has an ``item`` that belongs to the history.
    carries_item: ClassVar[bool] = False
    #: Whether its ``usage`` and ``cost`` add to what the pod has consumed.
    counts_usage: ClassVar[bool] = False
    #: Which activity starts, or ends, with this event.
    starts: ClassVar[Activity | None] = None
    ends: ClassVar[Activity | None] = None
    #: Whether it is recorded sooner or later, also where the store refuses it.
    owed: ClassVar[bool] = False

    pod: str
    session_id: str
    seq: int
    at: float
    run_id: str | None = None


class DurableEvent(Event, frozen=True, gc=False, kw_only=True):
    """An event that is an entry of the log: it can be replayed and is never lost."""

    durable: ClassVar[bool] = True


class PodStarted(DurableEvent, frozen=True, gc=False, kw_only=True):
    """The pod is ready for commands; ``resumed`` says whether its session existed before. ``parent`` is the
    name of the pod whose sub-agent it is, None where a program spawned it.
    """

    model: str
    resumed: bool = False
    parent: str | None = None


class PodEnded(DurableEvent, frozen=True, gc=False, kw_only=True, tag="PodStopped"):
    """The pod has stopped; its session can be resumed. On the wire and in logs it is ``PodStopped``."""


#: What the event was called when it shared its name with the error.
PodStopped = PodEnded
errors.PodStopped.event = PodEnded

#: What ``kinds=`` of a subscription takes. Old programs name PodEnded by the error ``PodStopped``.
EventKind = type[Event] | type[errors.PodStopped]


class PodFailed(DurableEvent, frozen=True, gc=False, kw_only=True):
    """A defect ended the pod; its session can be resumed. ``restarts`` says whether its supervisor is about
    to do that.
    """

    error: Failure
    restarts: bool = False


class RunStart(DurableEvent, frozen=True, gc=False, kw_only=True):
    """A run began, or continues after a pause with the same ``run_id`` (``reason`` is resume)."""

    reason: RunReason = "run"


class RunEnd(DurableEvent, frozen=True, gc=False, kw_only=True):
    """A run ended.

    ``steps`` counts its requests to the model, ``seconds`` is how long it took since it began or was resumed
    (None where unknown); ``error`` says why it failed, or which limit or budget it reached. ``cost`` (US
    dollars) is what a foreign agent reports for the run as a whole; the cost of a pod's run is the sum of its
    answers.
    """

    outcome: RunOutcome
    steps: int = 0
    usage: Usage = Usage()
    error: Failure | None = None
    seconds: float | None = None
    cost: float | None = None


class UserMessage(DurableEvent, frozen=True, gc=False, kw_only=True):
    """User input entered the history; ``source`` is the command that brought it."""

    carries_item: ClassVar[bool] = True

    item: UserItem
    source: UserSource = "run"


class AssistantMessage(DurableEvent, frozen=True, gc=False, kw_only=True):
    """An answer of the model entered the history.

    ``usage`` is what the server reported for this call, ``cost`` in US dollars, None where unknown. For an
    answer that was cut (``item.cut``), ``usage`` contains estimates for what was not reported.
    """

    carries_item: ClassVar[bool] = True
    counts_usage: ClassVar[bool] = True

    item: AssistantItem
    model: str | None = None
    stop_reason: str | None = None
    usage: Usage | None = None
    cost: float | None = None


class AttemptFailed(DurableEvent, frozen=True, gc=False, kw_only=True):
    """An attempt of a request (``attempt`` counts from 1) used tokens and gave no answer: it broke off, or
    was cancelled.

    ``usage`` and ``cost`` as of AssistantMessage; what no server reported is an estimate.
    """

    counts_usage: ClassVar[bool] = True

    attempt: int
    error: Failure
    usage: Usage | None = None
    cost: float | None = None


class TierAttempted(DurableEvent, frozen=True, gc=False, kw_only=True):
    """A tier of an escalation chain is done: it was accepted, rejected or failed.

    ``attempt`` has its result. ``usage`` and ``cost`` (US dollars) are what it and its verifier used up that
    no other event has: the calls of an accepted tier are in its AssistantMessage.
    """

    counts_usage: ClassVar[bool] = True

    attempt: AttemptRecord
    usage: Usage | None = None
    cost: float | None = None


class SystemMessage(DurableEvent, frozen=True, gc=False, kw_only=True):
    """The runtime added words of its own to the history."""

    carries_item: ClassVar[bool] = True

    item: SystemItem


class ToolResulted(DurableEvent, frozen=True, gc=False, kw_only=True):
    """A call got its result.

    ``seconds`` is the tool's own time, None if it did not run; ``waited`` the seconds that a plain function
    waited before that for a free thread, None if it needed none; ``arguments`` those that it ran with if they
    were changed, None if they are the model's own.
    """

    carries_item: ClassVar[bool] = True

    item: ToolResult
    seconds: float | None = None
    waited: float | None = None
    arguments: dict[str, Any] | None = None


class CompactStart(DurableEvent, frozen=True, gc=False, kw_only=True):
    """A compaction began at ``occupancy`` tokens; exactly one of done or failed follows."""

    starts: ClassVar[Activity | None] = "compaction"

    reason: CompactReason
    occupancy: int | None = None


class CompactDone(DurableEvent, frozen=True, gc=False, kw_only=True):
    """The history is compacted and goes on in ``new_session_id``; ``before`` and ``after`` are in tokens.

    ``source`` says where the summary comes from: the summariser's ``tool``, its ``words`` (it was asked twice
    and called no tool), or ``extractive``, without a model; None in older logs. ``usage`` and ``cost`` (US
    dollars) are what the summariser's calls used up, None if it made none.
    """

    counts_usage: ClassVar[bool] = True
    ends: ClassVar[Activity | None] = "compaction"

    new_session_id: str
    before: int | None = None
    after: int | None = None
    source: SummarySource | None = None
    usage: Usage | None = None
    cost: float | None = None


class CompactFailed(DurableEvent, frozen=True, gc=False, kw_only=True):
    """A compaction failed or was cancelled; the session is as it was. ``usage`` and ``cost`` as of
    CompactDone.
    """

    counts_usage: ClassVar[bool] = True
    ends: ClassVar[Activity | None] = "compaction"

    error: Failure
    usage: Usage | None = None
    cost: float | None = None


class ExtractStart(DurableEvent, frozen=True, gc=False, kw_only=True):
    """A detached memory job began to read the history after ``pointer``."""

    starts: ClassVar[Activity | None] = "extraction"

    pointer: int | None = None


class ExtractDone(DurableEvent, frozen=True, gc=False, kw_only=True):
    """A memory job has processed the history through ``pointer``; ``staged`` counts what it found,
    ``usage`` and ``cost`` (US dollars) are what its calls took.
    """

    counts_usage: ClassVar[bool] = True
    ends: ClassVar[Activity | None] = "extraction"

    pointer: int
    staged: int = 0
    usage: Usage | None = None
    cost: float | None = None


class ExtractFailed(DurableEvent, frozen=True, gc=False, kw_only=True):
    """A memory job failed; the pointer is where it was. ``usage`` and ``cost`` as of ExtractDone."""

    counts_usage: ClassVar[bool] = True
    ends: ClassVar[Activity | None] = "extraction"

    error: Failure
    usage: Usage | None = None
    cost: float | None = None


class ConsolidateStart(DurableEvent, frozen=True, gc=False, kw_only=True):
    """A detached memory job began to merge ``files`` staged files (``size`` bytes) into lasting memory."""

    starts: ClassVar[Activity | None] = "consolidation"

    files: int
    size: int


class ConsolidateDone(DurableEvent, frozen=True, gc=False, kw_only=True):
    """The contents of ``files`` staged files are now in lasting memory, in ``notes`` new or changed notes;
    ``mechanical`` if no model took part.

    ``left`` findings were not merged by the model and are kept as they were found. ``usage`` and ``cost`` as
    of ExtractDone.
    """

    counts_usage: ClassVar[bool] = True
    ends: ClassVar[Activity | None] = "consolidation"

    files: int
    notes: int
    mechanical: bool = False
    left: int = 0
    usage: Usage | None = None
    cost: float | None = None


class ConsolidateFailed(DurableEvent, frozen=True, gc=False, kw_only=True):
    """A consolidation failed or wrote nothing; everything that was staged is kept. ``usage`` and ``cost`` as
    of ExtractDone.
    """

    counts_usage: ClassVar[bool] = True
    ends: ClassVar[Activity | None] = "consolidation"

    error: Failure
    usage: Usage | None = None
    cost: float | None = None


class SessionForked(DurableEvent, frozen=True, gc=False, kw_only=True):
    """``new_session_id`` branches off this session after the entry with hash ``at_hash``."""

    new_session_id: str
    at_hash: str
    reason: str = "fork"


class ApprovalRequested(DurableEvent, frozen=True, gc=False, kw_only=True):
    """The call ``call_id`` waits for a person's approval before it runs with ``arguments``.

    ``why`` says which rule or setting demands that, and ``hint`` what would let such calls run without.
    ``injected`` is what hooks append to its result. If nobody has answered ``timeout`` seconds after the
    event's own time, the call is denied. An answer from another process is accepted if it proves that its
    sender has the token with the id ``token``; None requires no proof, and with an empty one no answer is
    accepted. With a ``form`` the call has begun, and its tool asks a person the question in ``why``: an
    approval has ``arguments`` of that schema, a denial leaves the question unanswered.
    """

    approval_id: str
    tool: str
    call_id: str = ""
    arguments: dict[str, Any] = {}
    why: str | None = None
    injected: tuple[str, ...] = ()
    timeout: float | None = None
    token: str | None = None
    form: dict[str, Any] | None = None
    hint: str | None = None

    @property
    def ends_at(self) -> float:
        """Until when it may be answered, in seconds since the epoch."""
        return math.inf if self.timeout is None else self.at + self.timeout


class ApprovalResolved(DurableEvent, frozen=True, gc=False, kw_only=True):
    """A call no longer waits.

    ``by`` says why: somebody has answered (``person`` or ``steer``), nobody could (``nobody``), nobody did in
    time (``timeout``), the answer in the store bears no proof (``unproved``), or its run has ended (``run``).
    ``arguments`` replace those that were asked about, ``note`` is for the model, and ``rule`` applies to the
    pod from now on.
    """

    approval_id: str
    approved: bool
    by: str | None = None
    call_id: str = ""
    arguments: dict[str, Any] | None = None
    note: str | None = None
    rule: ApprovalRule | None = None


class ChildStarted(DurableEvent, frozen=True, gc=False, kw_only=True):
    """The pod has given ``task`` to a sub-agent: the pod ``child`` with session ``child_session``, which its
    parent calls ``name``.

    Where ``scope`` lets the sub-agent write, its parent may not write until it has ended; what ``budget``
    limits is set aside from the parent's budget.
    """

    child: str
    name: str
    child_session: str
    task: str = ""
    scope: Scope = Scope()
    budget: BudgetSection = BudgetSection()


class ChildEnded(DurableEvent, frozen=True, gc=False, kw_only=True):
    """The sub-agent ``child`` has ended, with the ``outcome`` of its last run (``cancelled`` if it had none),
    and everything that it had been given is its parent's again.

    ``usage``, ``cost`` (US dollars) and ``seconds`` are what it used up in its life, with its own sub-agents;
    None where unknown. ``error`` says why it failed.
    """

    owed: ClassVar[bool] = True

    child: str
    name: str
    child_session: str
    outcome: RunOutcome
    usage: Usage | None = None
    cost: float | None = None
    seconds: float | None = None
    error: Failure | None = None


class AgentStarted(DurableEvent, frozen=True, gc=False, kw_only=True):
    """An agent's program is up; ``pod`` is the agent's id. ``session`` is the program's own name for the
    conversation, by which it is resumed; ``pid`` is its process (None where it has none of its own), and
    ``born`` distinguishes that from later processes with the same number.
    """

    runner: str
    task: str | None = None
    cwd: str = ""
    model: str | None = None
    provider: str | None = None
    session: str | None = None
    pid: int | None = None
    resumed: bool = False
    born: str | None = None


class AgentActivity(DurableEvent, frozen=True, gc=False, kw_only=True):
    """What an agent reports that it is doing, for people, where no other event says so."""

    activity: str


class AgentIdle(DurableEvent, frozen=True, gc=False, kw_only=True):
    """An agent has no task, and waits for input."""


class AgentOutput(DurableEvent, frozen=True, gc=False, kw_only=True):
    """An agent's program wrote a line that is not part of its protocol."""

    stream: AgentStream
    text: str


class AgentStopRequested(DurableEvent, frozen=True, gc=False, kw_only=True):
    """A person wants the agent to end; recorded before its program is asked to. Only a person who resumes it
    starts it again.
    """


class AgentStopped(DurableEvent, frozen=True, gc=False, kw_only=True):
    """The life of an agent has ended, and no process of it is left. ``code`` is its program's exit code, or
    minus the signal that ended it; ``error`` says why it failed.
    """

    owed: ClassVar[bool] = True

    reason: AgentStopReason
    code: int | None = None
    error: Failure | None = None


class AgentRestarted(DurableEvent, frozen=True, gc=False, kw_only=True):
    """An agent that had ended lives again; ``restarts`` counts its recent restarts, and ``error`` is why it
    had ended, None if a person resumed it.
    """

    restarts: int = 0
    error: Failure | None = None


class BudgetExceeded(DurableEvent, frozen=True, gc=False, kw_only=True):
    """The next call would not fit the budget of the pod, of the pod whose sub-agent it is, or of all pods of
    its system (``whose``).

    ``used`` is what was spent, ``reserved`` what is held back for calls under way plus what the next call may
    take.
    """

    budget: Literal["tokens", "cost_usd", "seconds"]
    limit: float
    used: float
    reserved: float = 0.0
    whose: Literal["pod", "parent", "system"] = "pod"


class Alert(DurableEvent, frozen=True, gc=False, kw_only=True):
    """Something a person should know that ended nothing: a torn tail was cut, a job gave up."""

    text: str
    error: Failure | None = None


class TurnStart(Event, frozen=True, gc=False, kw_only=True):
    """A request goes to the model; ``turn`` counts from 1 within the run."""

    turn: int


class TurnEnd(Event, frozen=True, gc=False, kw_only=True):
    """The request was answered and the tools it called have ended."""

    turn: int


class TextDelta(Event, frozen=True, gc=False, kw_only=True):
    """A piece of the model's text, not yet durable; ``attempt`` counts from 1 within the request."""

    text: str
    attempt: int = 1


class ThinkingDelta(Event, frozen=True, gc=False, kw_only=True):
    """A piece of the model's reasoning, not yet durable."""

    text: str
    attempt: int = 1


class ToolCallDelta(Event, frozen=True, gc=False, kw_only=True):
    """A piece of a call's argument text as the model writes it."""

    call_id: str
    name: str
    text: str = ""
    attempt: int = 1


class ToolStart(Event, frozen=True, gc=False, kw_only=True):
    """A tool begins to run."""

    call_id: str
    name: str
    arguments: dict[str, Any] = {}


class ToolProgress(Event, frozen=True, gc=False, kw_only=True):
    """A running tool reports how far it is."""

    call_id: str
    name: str
    text: str


class UsageUpdate(Event, frozen=True, gc=False, kw_only=True):
    """What the call (or the compaction) that just ended consumed, and the run so far."""

    usage: Usage
    run_usage: Usage
    cost: float | None = None


class Retry(Event, frozen=True, gc=False, kw_only=True):
    """A request failed before any output and is sent again in ``wait`` seconds."""

    attempt: int
    wait: float
    error: Failure


class StreamRestart(Event, frozen=True, gc=False, kw_only=True):
    """Output of attempt ``attempt`` is void: the stream broke and the request is sent again in ``wait``
    seconds. Published instead of Retry once there was any output.
    """

    attempt: int
    error: Failure
    wait: float = 0.0


class RestartsExhausted(Event, frozen=True, gc=False, kw_only=True):
    """The pod failed after its supervisor had used up its restarts, and stays ended. ``restarts`` counts the
    recent ones of the pod, or of its whole group; ``stopped`` are the pods of the group that were stopped for
    it, in that order.
    """

    error: Failure
    restarts: int
    stopped: tuple[str, ...] = ()


class ProcessLost(Event, frozen=True, gc=False, kw_only=True):
    """The pod's process has ended, or was killed, without having been asked to: ``error`` says how.
    ``restarts`` is whether another takes its place.
    """

    error: Failure
    restarts: bool = False


class StateChanged(Event, frozen=True, gc=False, kw_only=True):
    """The pod moved from one state to another."""

    old: PodState
    new: PodState


class Lagged(Event, frozen=True, gc=False, kw_only=True):
    """A subscriber was too slow: ``missed`` events were dropped from its queue at this point.

    Subscribing again with ``since`` replays every durable one of them. For a subscription to all pods,
    ``since`` maps pod names to numbers. If events were ``deleted``, no replay has them: ``session_id`` is the
    session that no longer exists, the events up to its entry ``since`` are gone, and ``missed`` is the most
    that they can be.
    """

    missed: int
    since: int | dict[str, int]
    deleted: bool = False


DURABLE_EVENTS: tuple[type[DurableEvent], ...] = (
    PodStarted,
    PodEnded,
    PodFailed,
    RunStart,
    RunEnd,
    UserMessage,
    AssistantMessage,
    AttemptFailed,
    TierAttempted,
    SystemMessage,
    ToolResulted,
    CompactStart,
    CompactDone,
    CompactFailed,
    ExtractStart,
    ExtractDone,
    ExtractFailed,
    ConsolidateStart,
    ConsolidateDone,
    ConsolidateFailed,
    SessionForked,
    ApprovalRequested,
    ApprovalResolved,
    ChildStarted,
    ChildEnded,
    AgentStarted,
    AgentActivity,
    AgentIdle,
    AgentOutput,
    AgentStopRequested,
    AgentStopped,
    AgentRestarted,
    BudgetExceeded,
    Alert,
)
TRANSIENT_EVENTS: tuple[type[Event], ...] = (
    TurnStart,
    TurnEnd,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    ToolStart,
    ToolProgress,
    UsageUpdate,
    Retry,
    StreamRestart,
    ProcessLost,
    RestartsExhausted,
    StateChanged,
    Lagged,
)
EVENTS: tuple[type[Event], ...] = (*DURABLE_EVENTS, *TRANSIENT_EVENTS)

#: What ends an activity that came to nothing.
FAILED: dict[Activity, type[DurableEvent]] = {
    "compaction": CompactFailed,
    "extraction": ExtractFailed,
    "consolidation": ConsolidateFailed,
}

#: The durable events that carry an item of the conversation.
ItemEvent = UserMessage | AssistantMessage | SystemMessage | ToolResulted
