"""The state of an agent: one pure fold of what its session, and its pod's, record."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from protocol.agents import AgentResult, AgentStatus
from protocol.entries import Entry, OtherEntry, SessionOpened
from protocol.errors import Failure
from protocol.events import (
    AgentActivity,
    AgentIdle,
    AgentRestarted,
    AgentStarted,
    AgentStopped,
    AgentStopRequested,
    ApprovalRequested,
    ApprovalResolved,
    AssistantMessage,
    Event,
    RunEnd,
    RunStart,
    ToolCallDelta,
    ToolResulted,
    ToolStart,
    UserMessage,
)
from protocol.usage import Usage

#: Characters of a tool's name, and of other words, that say what an agent does.
_SHORT, _LONG = 60, 200
#: A task with one of these outcomes has ended as it should, or because somebody wished it.
_TASK_STATUS: dict[str, AgentStatus] = {"finished": "done", "cancelled": "killed", "paused": "killed"}

#: The end of an agent whose process is gone without having recorded one.
SUPERVISOR_DIED = Failure("AgentFailed", "its supervisor died", "resume it to continue")


class AgentState(Struct, frozen=True):
    """What the records of an agent say, up to one of them.

    For the current task, ``text`` is its last answer, and ``usage``, ``cost`` and ``seconds`` are what it has
    used up so far.
    """

    activity: str = "starting"
    #: Whether its program was up in this life, whether it waits for words, and whether a run is open.
    up: bool = False
    ready: bool = False
    at_work: bool = False
    #: Whether it has ended, and how; None while it lives.
    ended: AgentStopped | None = None
    #: Whether somebody asked for its end, which nothing undoes but a person who resumes it.
    stop_asked: bool = False
    #: What it waits for a person to allow.
    asks: tuple[ApprovalRequested, ...] = ()
    #: What it had asked when its run was interrupted, and waits for again if that run is resumed.
    asked_before: tuple[ApprovalRequested, ...] = ()
    session: str | None = None
    pid: int | None = None
    born: str | None = None
    model: str | None = None
    #: How often it was started, and when that was done of late since it had failed.
    lives: int = 0
    restarts: tuple[float, ...] = ()
    #: How the last task ended; None where there was none, or it goes on.
    outcome: str | None = None
    text: str = ""
    usage: Usage | None = None
    cost: float | None = None
    seconds: float | None = None
    error: Failure | None = None
    #: What all its tasks have taken that have ended; None where no end says.
    used: Usage | None = None
    #: The number of the agent's own last record.
    seq: int = 0
    at: float = 0.0

    @property
    def status(self) -> AgentStatus:
        """The status, as far as is recorded."""
        if self.ended is not None:
            return _end_status(self)
        if self.asks:
            return "waiting"
        if self.ready:
            return "idle"
        return "running" if self.up else "pending"

    @property
    def is_paused(self) -> bool:
        """Whether it waits for words with a task that was interrupted."""
        return self.status == "idle" and self.outcome == "paused"

    @property
    def is_cut_off(self) -> bool:
        """Whether it has ended though it was not done and no person has ended it."""
        end = self.ended
        if end is None or self.stop_asked or end.reason == "cancelled":
            return False
        return end.reason in {"shutdown", "killed"} or _end_status(self) != "done"

    def result(self) -> AgentResult:
        """How its last task ended, or how far it is."""
        status = self.status
        if status != "failed" and self.outcome is not None and not self.at_work:
            status = _TASK_STATUS.get(self.outcome, "failed")
        return AgentResult(
            status=status,
            text=self.text,
            usage=self.usage,
            cost=self.cost,
            seconds=self.seconds,
            error=self.error,
        )

    def task_result(self) -> AgentResult:
        """How its last task ended: done, too, where it was finished before the process that looked after the
        agent died.
        """
        result = self.result()
        died = self.error is not None and self.error.message == SUPERVISOR_DIED.message  # hints are reworded
        if died and self.outcome == "finished":
            return replace(result, status="done", error=None)
        return result


def status_of(state: AgentState, *, supervised: bool) -> AgentStatus:
    """The status of an agent; one whose end nobody has recorded, and that nobody supervises, is detached."""
    return state.status if supervised or state.ended is not None else "detached"


def _end_status(state: AgentState) -> AgentStatus:
    end = state.ended
    assert end is not None
    if state.stop_asked or end.reason == "cancelled":
        return "killed"
    if end.error is not None or (end.code and end.reason == "exit"):
        return "failed"
    if end.reason == "killed":
        return "killed"
    return "done" if state.outcome is None else _TASK_STATUS.get(state.outcome, "failed")


def after(state: AgentState, event: Event | Entry | OtherEntry, agent_id: str) -> AgentState:
    """The state after one more record: of the agent ``agent_id``, or of the pod that it runs."""
    new = _after(state, event)
    if isinstance(event, Event) and event.pod == agent_id and event.durable:
        return replace(new, seq=event.seq, at=event.at)
    return new


def _after(state: AgentState, event: Event | Entry | OtherEntry) -> AgentState:  # noqa: PLR0911
    match event:
        case SessionOpened():
            return state
        case AgentRestarted():
            times = () if event.error is None else (*state.restarts, event.at)[-max(event.restarts, 1) :]
            return replace(_reborn(state), restarts=times)
        case AgentStarted():
            began = _reborn(state) if state.ended is not None else state
            return replace(
                began,
                up=True,
                ready=False,
                activity="starting",
                at_work=began.at_work or (bool(event.task) and not event.resumed),
                session=event.session or state.session,
                pid=event.pid,
                born=event.born,
                model=event.model or state.model,
                lives=state.lives + 1,
            )
        case AgentStopRequested():
            return replace(state, stop_asked=True)
        case AgentStopped():
            return _stopped(state, event)
        case AgentIdle():
            idle = _interrupted(state)
            return replace(idle, up=True, ready=True, at_work=False, activity="idle")
        case RunStart():  # a program that has to be handed its task begins a new life with that
            next_life = state.ended is not None and not state.stop_asked
            return _task_begins(_reborn(state) if next_life else state, event)
        case RunEnd():
            return _task_ends(state, event)
        case _:
            return _at_work(state, event)


def _reborn(state: AgentState) -> AgentState:
    """A new life begins: what ended the one before no longer counts, and its pod continues its session."""
    return replace(
        _interrupted(state),
        activity="starting",
        up=False,
        ready=False,
        at_work=False,
        ended=None,
        stop_asked=False,
        pid=None,
        born=None,
        error=None,
    )


def _interrupted(state: AgentState) -> AgentState:
    """Nothing waits for a person for now; a pod's requests stay open for when its run is resumed."""
    return replace(state, asks=(), asked_before=(*state.asked_before, *state.asks))


def _stopped(state: AgentState, event: AgentStopped) -> AgentState:
    outcome = state.outcome
    if outcome is None and state.at_work:  # its task was cut off
        outcome = "cancelled" if event.error is None else "failed"
    ended = replace(
        _interrupted(state),
        ended=event,
        at_work=False,
        outcome=outcome,
        pid=None,
        born=None,
        error=event.error or state.error,
    )
    return replace(ended, activity=ended.status)


def _task_begins(state: AgentState, event: RunStart) -> AgentState:
    asks = state.asks
    if event.reason == "resume":
        asks = (*state.asked_before, *asks)
    return replace(
        state,
        up=True,
        ready=False,
        at_work=True,
        activity=_asking(asks[-1]) if asks else "thinking",
        asks=asks,
        asked_before=(),
        outcome=None,
        text="",
        usage=None,
        cost=None,
        seconds=None,
        error=None,
    )


def _task_ends(state: AgentState, event: RunEnd) -> AgentState:
    usage = event.usage if event.usage != Usage() else state.usage
    cost = state.cost if event.cost is None else event.cost
    used = state.used
    if event.usage != Usage():
        used = event.usage if used is None else used + event.usage
    return replace(
        _interrupted(state) if event.outcome == "paused" else replace(state, asks=(), asked_before=()),
        at_work=False,
        activity=event.outcome,
        outcome=event.outcome,
        usage=usage,
        cost=cost,
        seconds=event.seconds,
        error=event.error,
        used=used,
    )


def _at_work(state: AgentState, event: Event | Entry | OtherEntry) -> AgentState:
    """What happens within a task, of which no more is kept than what it does now and has consumed."""
    doing = state.activity
    match event:
        case AssistantMessage():
            called = event.item.calls[0].name[:_SHORT] if event.item.calls else None
            doing = "thinking" if called is None else f"tool: {called}"
            state = replace(state, text=event.item.text or state.text)
        case ToolStart() | ToolCallDelta():
            doing = f"tool: {event.name[:_SHORT]}"
        case UserMessage() | ToolResulted() if state.at_work:
            doing = "thinking"
        case AgentActivity():
            doing = event.activity[:_LONG]
        case ApprovalRequested():
            doing = _asking(event)
            state = replace(state, asks=(*state.asks, event))
        case ApprovalResolved():
            asks, before = (_without(event, each) for each in (state.asks, state.asked_before))
            doing = doing if asks else "thinking"
            state = replace(state, asks=asks, asked_before=before)
        case _:
            pass
    if doing != state.activity:
        state = replace(state, activity=doing)
    if isinstance(event, Event) and event.counts_usage:
        return _count(state, event.usage, event.cost)  # type: ignore[attr-defined]
    return state


def _asking(request: ApprovalRequested) -> str:
    return f"asks: {request.tool[:_SHORT]}"


def _without(
    resolved: ApprovalResolved, requests: tuple[ApprovalRequested, ...]
) -> tuple[ApprovalRequested, ...]:
    return tuple(each for each in requests if each.approval_id != resolved.approval_id)


def _count(state: AgentState, usage: Usage | None, cost: float | None) -> AgentState:
    total = usage if state.usage is None else state.usage if usage is None else state.usage + usage
    return replace(state, usage=total, cost=state.cost if cost is None else (state.cost or 0.0) + cost)
