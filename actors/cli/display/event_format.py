"""Each event, and each entry of a session log, formatted as one line for people; pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from actors.cli.display.format import arguments, count, cut, seconds, size, tokens
from protocol import events
from protocol.entries import Entry, ItemsKept, MemoryPointer, OtherEntry, SessionOpened
from protocol.errors import Failure
from protocol.events import Event
from protocol.items import AssistantItem, ToolCall, ToolResult
from protocol.routing import AttemptRecord
from protocol.text import amount

#: What a line is about; a terminal gives each its colour.
TONES = ("user", "answer", "tool", "error", "note", "quiet")


#: Characters of the longest line.
_LONGEST = 1000


class Line(NamedTuple):
    """One line for people: its tone (one of TONES) and its text."""

    tone: str
    text: str


def call_words(call: ToolCall, width: int = 80) -> str:
    """A call: ``read(path='a.txt')``."""
    given = arguments(call.arguments, width) if call.invalid is None else cut(call.invalid, width)
    return f"{call.name}({given})"


def result_line(result: ToolResult, call: ToolCall | None, took: float | None, width: int = 80) -> Line:
    """A result with its call: ``✓ read(path='a.txt') → 1.2 kB, 3 ms``, or why there is none."""
    name = call_words(call, width) if call is not None else result.name
    if result.is_error:
        return Line("error", cut(f"✗ {name} → {cut(result.text, 2 * width)}", _LONGEST))
    time = f", {seconds(took)}" if took is not None else ""
    kept = f", whole in {result.kept}" if result.kept else ""
    length = size(len(result.text.encode(errors="replace")))
    return Line("tool", cut(f"✓ {name} → {length}{time}{kept}", _LONGEST))


def answer_line(item: AssistantItem, width: int = 100) -> Line:
    """An answer: its words, then its calls."""
    calls = ", ".join(call_words(call, width // 2) for call in item.calls)
    text = cut(item.text, width)
    words = " ▸ ".join(part for part in (text, calls) if part) or "(nothing)"
    return Line("answer", f"{words} [cut off]" if item.cut else words)


def event_line(event: Event, width: int = 100) -> Line:
    """An event, durable or transient; ``width`` bounds what is quoted."""
    tone, text = _EVENTS[type(event)](event, width)
    return Line(tone, cut(text, _LONGEST))  # a name that a model made up may hold anything


def _missed(event: events.Lagged) -> str:
    if not event.deleted:
        return f"{count(event.missed, 'event')} missed"
    return f"the events up to {event.since} are gone: session {event.session_id} was deleted"


def entry_line(entry: Entry | OtherEntry, width: int = 100) -> Line:
    """An entry of a session log."""
    if isinstance(entry, OtherEntry):
        return Line("quiet", cut(f"{entry.kind}, known only to a newer polypod", _LONGEST))
    if isinstance(entry, SessionOpened):
        parent = entry.parent
        origin = "" if parent is None else f", {parent.kind.replace('_', ' ')} {parent.session_id}"
        return Line("quiet", cut(f"session opened for pod {entry.pod}{origin}", _LONGEST))
    if isinstance(entry, ItemsKept):
        return Line("quiet", f"{count(len(entry.items), 'item')} taken over")
    if isinstance(entry, MemoryPointer):
        read = "nothing" if entry.pointer is None else count(entry.pointer, "item")
        return Line("quiet", f"memory has read {read}")
    return event_line(entry, width)


def failed(what: str, error: Failure | None) -> str:
    """What failed, and why where that is known."""
    return what if error is None else f"{what}: {cut(str(error), 300)}"


def _said(event: events.UserMessage, width: int) -> Line:
    source = "" if event.source == "run" else f"({event.source}) "
    return Line("user", source + cut(event.item.text, width))


def _run_ended(event: events.RunEnd, _: int) -> Line:
    tone = "error" if event.outcome == "failed" else "note"
    what = f"run {event.outcome.replace('_', ' ')}, {count(event.steps, 'request')}, {tokens(event.usage)}"
    return Line(tone, failed(what, event.error))


def _compacting(event: events.CompactStart, _: int) -> Line:
    held = "" if event.occupancy is None else f" at {event.occupancy:,} tokens"
    return Line("note", f"compaction began{held} ({event.reason.replace('_', ' ')})")


def _compacted(event: events.CompactDone, _: int) -> Line:
    known = event.before is not None and event.after is not None
    shrunk = f" from {event.before:,} to {event.after:,} tokens" if known else ""
    return Line("note", f"compacted{shrunk}, continues in session {event.new_session_id}")


def _consolidating(event: events.ConsolidateStart, _: int) -> Line:
    return Line("quiet", f"consolidation of memory began, {count(event.files, 'file')}, {size(event.size)}")


def _consolidated(event: events.ConsolidateDone, _: int) -> Line:
    how = ", without a model" if event.mechanical else ""
    return Line("quiet", f"memory consolidated, {count(event.notes, 'note')} new or changed{how}")


def _waits(event: events.ApprovalRequested, width: int) -> Line:
    why = f" ({cut(event.why, width)})" if event.why else ""
    return Line("note", f"{event.tool}({arguments(event.arguments, width)}) waits for approval{why}")


def _decided(event: events.ApprovalResolved, width: int) -> Line:
    if event.by == "run":
        return Line("note", "not run: its run is over")
    if event.by == "unproved":
        return Line("note", "denied: the stored answer carries no valid proof that a person gave it")
    if event.by == "timeout":
        return Line("note", "denied: nobody answered in time ([approvals] timeout)")
    note = f": {cut(event.note, width)}" if event.note else ""
    if event.by == "nobody":
        return Line("note", "denied: nobody gave approval")
    by = f" by {'a steering message' if event.by == 'steer' else f'a {event.by}'}" if event.by else ""
    changed = ", with changed arguments" if event.arguments is not None else ""
    always = ", always" if event.rule is not None else ""
    return Line("note", f"{'approved' if event.approved else 'denied'}{by}{changed}{always}{note}")


def _why_stopped(event: events.AgentStopped) -> str:
    code = "" if event.code is None else f" {event.code}"
    return event.reason.replace("_", " ") + code


def _piece(event: events.TextDelta | events.ThinkingDelta, width: int) -> Line:
    return Line("quiet", cut(event.text, width))


def _named_piece(event: events.ToolCallDelta | events.ToolProgress, width: int) -> Line:
    return Line("quiet", f"{event.name}: {cut(event.text, width)}")


def _tier(attempt: AttemptRecord, width: int) -> str:
    what = {"accept": "was accepted", "escalate": "was rejected", "error": "failed"}[attempt.verdict]
    feedback = f": {attempt.feedback}" if attempt.feedback else ""
    return cut(f"{attempt.model} {what} after {seconds(attempt.duration_ms / 1000)}{feedback}", width)


_EVENTS: dict[type[Event], Callable[[Any, int], Line]] = {
    events.PodStarted: lambda e, _: Line(
        "quiet", f"pod {'resumed' if e.resumed else 'started'} on {e.model}"
    ),
    events.PodEnded: lambda _e, _: Line("quiet", "pod stopped"),
    events.PodFailed: lambda e, _: Line("error", failed("pod failed", e.error)),
    events.RunStart: lambda e, _: Line("quiet", "run continues" if e.reason == "resume" else "run began"),
    events.RunEnd: _run_ended,
    events.UserMessage: _said,
    events.AssistantMessage: lambda e, width: answer_line(e.item, width),
    events.AttemptFailed: lambda e, _: Line("note", failed(f"attempt {e.attempt} failed", e.error)),
    events.TierAttempted: lambda e, width: Line("note", _tier(e.attempt, width)),
    events.SystemMessage: lambda e, width: Line("note", cut(e.item.text, width)),
    events.ToolResulted: lambda e, width: result_line(e.item, None, e.seconds, width),
    events.CompactStart: _compacting,
    events.CompactDone: _compacted,
    events.CompactFailed: lambda e, _: Line("error", failed("compaction failed", e.error)),
    events.ExtractStart: lambda _e, _: Line("quiet", "memory job began"),
    events.ExtractDone: lambda e, _: Line("quiet", f"memory job done, {count(e.staged, 'finding')}"),
    events.ExtractFailed: lambda e, _: Line("error", failed("memory job failed", e.error)),
    events.ConsolidateStart: _consolidating,
    events.ConsolidateDone: _consolidated,
    events.ConsolidateFailed: lambda e, _: Line("error", failed("consolidation of memory failed", e.error)),
    events.SessionForked: lambda e, _: Line("note", f"forked into session {e.new_session_id} ({e.reason})"),
    events.ApprovalRequested: _waits,
    events.ApprovalResolved: _decided,
    events.ChildStarted: lambda e, width: Line("note", f"sub-agent {e.name} started: {cut(e.task, width)}"),
    events.ChildEnded: lambda e, _: Line(
        "error" if e.outcome == "failed" else "note",
        failed(f"sub-agent {e.name} ended, {e.outcome.replace('_', ' ')}", e.error),
    ),
    events.AgentStarted: lambda e, _: Line(
        "quiet", f"agent {'resumed' if e.resumed else 'started'}, runner {e.runner}"
    ),
    events.AgentActivity: lambda e, width: Line("quiet", cut(e.activity, width)),
    events.AgentIdle: lambda _e, _: Line("quiet", "agent waits for a message"),
    events.AgentOutput: lambda e, width: Line("quiet", f"{e.stream}: {cut(e.text, width)}"),
    events.AgentStopRequested: lambda _e, _: Line("note", "agent is asked to stop"),
    events.AgentStopped: lambda e, _: Line(
        "note" if e.error is None else "error", failed(f"agent stopped, {_why_stopped(e)}", e.error)
    ),
    events.AgentRestarted: lambda e, _: Line("note", failed("agent restarted", e.error)),
    events.BudgetExceeded: lambda e, _: Line(
        "error",
        f"budget of {e.budget}: {amount(e.used)} of {amount(e.limit)} used, {amount(e.reserved)} reserved",
    ),
    events.Alert: lambda e, _: Line("error", failed(cut(e.text, 300), e.error)),
    events.TurnStart: lambda e, _: Line("quiet", f"request {e.turn}"),
    events.TurnEnd: lambda e, _: Line("quiet", f"request {e.turn} done"),
    events.TextDelta: _piece,
    events.ThinkingDelta: _piece,
    events.ToolCallDelta: _named_piece,
    events.ToolStart: lambda e, width: Line("quiet", f"{e.name}({arguments(e.arguments, width)})"),
    events.ToolProgress: _named_piece,
    events.UsageUpdate: lambda e, _: Line("quiet", tokens(e.usage)),
    events.Retry: lambda e, _: Line("note", f"trying again in {seconds(e.wait)}: {e.error.message}"),
    events.ProcessLost: lambda e, _: Line("error", failed("process lost", e.error)),
    events.RestartsExhausted: lambda e, _: Line(
        "note", f"not restarted again after {e.restarts} restarts: {e.error.message}"
    ),
    events.StreamRestart: lambda e, _: Line("note", f"the stream broke, retrying: {e.error.message}"),
    events.StateChanged: lambda e, _: Line("quiet", f"{e.old} → {e.new}"),
    events.Lagged: lambda e, _: Line("error", _missed(e)),
}
