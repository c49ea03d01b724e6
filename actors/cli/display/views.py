"""Renderers of a run's events: for a person, or as JSON lines for a program."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec

from actors.cli.display.answer import write_answer
from actors.cli.display.answer_writer import AnswerWriter, PlainWriter
from actors.cli.display.event_format import Line, event_line, failed, result_line
from actors.cli.display.format import arguments, count, cut, dollars, seconds, tokens
from actors.cli.display.json_rows import RunLine
from actors.cli.display.terminal import Terminal
from actors.runtime.events.encoded import EncodedEvent
from protocol import events
from protocol.errors import Failure, PolypodError, RunFailed
from protocol.events import Event
from protocol.items import ToolCall
from protocol.results import RunResult
from protocol.text import encodable_json
from protocol.usage import Usage
from protocol.wire import encode_line

#: Lines of an edit that are shown.
_DIFF_LINES = 40


class View(Protocol):
    """What shows a run: each event in order, then how it ended."""

    #: The failures of memory that were shown, each by its session and number; who shows them puts them here.
    shown: set[tuple[str, int]]

    def note(self, text: str) -> None:
        """Say something about the set-up."""

    def show_encoded(self, event: EncodedEvent) -> None:
        """Show the next event."""

    def show_sub_agent(self, event: EncodedEvent, name: str) -> None:
        """Show the next event of a sub-agent, of that name."""

    def show_end(self, result: RunResult) -> None:
        """Show how the run ended."""

    def show_failure(self, failure: Failure, run_id: str | None, session_id: str | None) -> None:
        """Show that the run failed; the words of the error itself are the command's to say."""


class JsonView:
    """Each event as a line of JSON on standard output, and last an object of type ``RunResult``."""

    def __init__(self) -> None:
        self.shown: set[tuple[str, int]] = set()

    def note(self, text: str) -> None:
        """Programs have no use for it."""

    def show_encoded(self, event: EncodedEvent) -> None:
        _put_line(event.body + b"\n")

    def show_sub_agent(self, event: EncodedEvent, name: str) -> None:  # noqa: ARG002 - events name their pod
        _put_line(event.body + b"\n")

    def show_end(self, result: RunResult) -> None:
        put_json(RunLine(**msgspec.structs.asdict(result)))

    def show_failure(self, failure: Failure, run_id: str | None, session_id: str | None) -> None:
        put_json(RunLine(outcome="failed", run_id=run_id, session_id=session_id, error=failure))


@contextmanager
def show_failures(view: View) -> Iterator[None]:
    """Show an error of the body as a failed run, unless it is a RunFailed, which has been shown."""
    try:
        yield
    except RunFailed:
        raise
    except PolypodError as error:
        view.show_failure(Failure.of(error), None, None)
        raise


def put_json(value: Any) -> None:
    """Write one line of JSON on standard output, at once."""
    try:
        line = encode_line(value)
    except UnicodeEncodeError:  # half a surrogate pair somewhere in it
        line = encode_line(encodable_json(msgspec.to_builtins(value)))
    _put_line(line)


def _put_line(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


class PeopleView:
    """Text as it is written, a line for each tool, and a moving sign while one has to wait.

    Where standard output is not a terminal it gets nothing but the run's last answer, for whoever reads it
    there; what the model says on its way is printed beside the tools, on standard error. So it is with an
    answer that is to fit a schema (``structured``).
    """

    def __init__(
        self, terminal: Terminal, *, structured: bool = False, writer: AnswerWriter | None = None
    ) -> None:
        """``writer`` writes answers as they come; by default as they are."""
        self.shown: set[tuple[str, int]] = set()
        self._terminal = terminal
        self._streams = terminal.live and not structured
        self._writer = PlainWriter(terminal) if writer is None else writer
        self._calls: dict[str, ToolCall] = {}
        self._running: dict[str, str] = {}
        self._streamed = False
        #: An answer that may be the last one.
        self._answered = ""
        self._thought = 0
        self._began: float | None = None
        self._took: float | None = None
        self._why: Failure | None = None
        #: The requests of the run, and the tiers of a chain that were asked for the last one.
        self._steps = self._tiers = 0
        self._usage: Usage | None = None
        self._cost: float | None = None
        #: The sub-agents that are at work, and lines about them for when no answer is being written.
        self._sub_agents: dict[str, None] = {}
        self._of_sub_agents: list[Line] = []
        self._between_runs = False
        #: The session that was named last.
        self._named = ""

    def note(self, text: str) -> None:
        self._terminal.note(text)

    def show_encoded(self, event: EncodedEvent) -> None:
        self.show(event.event)

    def show(self, event: Event) -> None:
        """Show the next event."""
        match event:
            case events.RunStart():
                self._began = self._began or event.at
                self._why, self._between_runs = None, False
            case events.RunEnd():
                self._took = None if self._began is None else max(0.0, event.at - self._began)
                self._why, self._between_runs = event.error, True
                self._add_usage(event.usage)
                self._wait_for_sub_agents()
            case events.TurnStart():
                self._on_the_way(self._answered)
                self._thought = 0
                self._end_streamed()
                self._steps += 1
                self._tiers = 0
                self._terminal.busy("thinking…")
            case events.TextDelta() | events.ThinkingDelta() | events.ToolCallDelta():
                self._piece(event)
            case events.AssistantMessage():
                self._add_cost(event.cost)
                self._answer(event)
            case events.ToolStart() | events.ToolProgress() | events.ToolResulted():
                self._tool(event)
            case events.ChildStarted() | events.ChildEnded():
                self._sub_agent(event)
            case _ if isinstance(event, _WORTH_A_LINE):
                self._line(event)

    def _line(self, event: Event) -> None:
        if isinstance(event, events.TierAttempted):
            self._add_cost(event.cost)
            self._steps += self._tiers > 0  # each tier is a request
            self._tiers += 1
            if event.attempt.verdict == "accept":
                return  # its answer says it
        self._end_streamed()  # what has come of an answer was there before
        self._terminal.say(event_line(event, self._terminal.width - 20))

    def _piece(self, event: events.TextDelta | events.ThinkingDelta | events.ToolCallDelta) -> None:
        if isinstance(event, events.ThinkingDelta):
            self._thought += len(event.text)
            self._terminal.busy(f"thinking… {count(self._thought, 'character')}")
        elif isinstance(event, events.ToolCallDelta):
            self._terminal.busy(f"calling {event.name}…")
        elif self._streams:
            self._writer.piece(event.text)
            self._streamed = True

    def _answer(self, event: events.AssistantMessage) -> None:
        if self._streams:
            if not self._streamed:
                self._writer.piece(event.item.text)
            self._writer.end()
            self._streamed = False
        elif event.item.calls:
            self._on_the_way(event.item.text)
        else:
            self._answered = event.item.text
        self._end_streamed()
        self._calls = {call.id: call for call in event.item.calls}

    def _on_the_way(self, text: str) -> None:
        """Print what turned out not to be the last answer."""
        self._answered = ""
        if text.strip():
            self._terminal.note(text.strip(), "answer")

    def _tool(self, event: events.ToolStart | events.ToolProgress | events.ToolResulted) -> None:
        if isinstance(event, events.ToolResulted):
            call = self._calls.get(event.item.call_id)
            self._running.pop(event.item.call_id, None)
            self._terminal.say(result_line(event.item, call, event.seconds, self._terminal.width // 2))
            self._diff(event.item.text)
        elif isinstance(event, events.ToolStart):
            # As it runs: a person may have changed it, or it was made before this process began.
            self._calls[event.call_id] = ToolCall(event.call_id, event.name, event.arguments)
            self._running[event.call_id] = f"{event.name}({arguments(event.arguments, 60)})"
        else:
            self._running[event.call_id] = f"{event.name}: {cut(event.text, 60)}"
        if self._running:
            self._terminal.busy(cut(", ".join(self._running.values()), self._terminal.width - 12))

    def _diff(self, text: str) -> None:
        """Show what an edit has changed, which its result says."""
        _, mark, diff = text.partition("\n@@ line ")
        if mark and self._terminal.interactive:
            lines = f"@@ line {diff}".splitlines()
            more = [f"… {len(lines) - _DIFF_LINES} more lines"] if len(lines) > _DIFF_LINES else []
            self._terminal.diff("\n".join([*lines[:_DIFF_LINES], *more]))

    def _end_streamed(self) -> None:
        """Show what has waited for the end of the answer that was written."""
        if self._streamed:
            self._writer.end()
        self._streamed = False
        lines, self._of_sub_agents = self._of_sub_agents, []
        for line in lines:
            self._terminal.say(line)

    # -- sub-agents --------------------------------------------------------------------------------

    def show_sub_agent(self, event: EncodedEvent, name: str) -> None:
        line = self._line_of(event.event)
        if line is not None:
            self._say_of_sub_agent(name, line)

    def _line_of(self, event: Event) -> Line | None:
        """What is shown of a sub-agent's event."""
        match event:
            case events.ToolStart():
                self._calls[event.call_id] = ToolCall(event.call_id, event.name, event.arguments)
            case events.ToolResulted():
                call = self._calls.get(event.item.call_id)
                return result_line(event.item, call, event.seconds, self._terminal.width // 3)
            case events.AssistantMessage() if event.item.text:
                return Line("quiet", event.item.text)
            case events.ChildStarted() | events.ChildEnded():
                return event_line(event, self._terminal.width)
            case _ if isinstance(event, _WORTH_A_LINE):
                return event_line(event, self._terminal.width)
        return None

    def _sub_agent(self, event: events.ChildStarted | events.ChildEnded) -> None:
        if isinstance(event, events.ChildStarted):
            self._sub_agents[event.name] = None
            self._say_of_sub_agent(event.name, Line("note", f"starts: {event.task}"))
            return
        self._sub_agents.pop(event.name, None)
        self._add_usage(event.usage)
        ended = f"has ended, {event.outcome.replace('_', ' ')}"
        self._say_of_sub_agent(event.name, Line("note", failed(ended, event.error)))

    def _say_of_sub_agent(self, name: str, line: Line) -> None:
        """One line, whatever the width."""
        shown = Line(line.tone, cut(f"▸ {name} {line.text}", self._terminal.width - 1))
        if self._streamed:
            self._of_sub_agents.append(shown)
        else:
            self._terminal.say(shown)
            self._wait_for_sub_agents()

    def _wait_for_sub_agents(self) -> None:
        if self._between_runs and self._sub_agents:
            self._terminal.busy(cut(f"waiting for {', '.join(self._sub_agents)}…", self._terminal.width - 12))

    def _add_usage(self, usage: Usage | None) -> None:
        if usage is not None:
            self._usage = usage if self._usage is None else self._usage + usage

    def _add_cost(self, cost: float | None) -> None:
        if cost is not None:
            self._cost = cost if self._cost is None else self._cost + cost

    # -- the end -----------------------------------------------------------------------------------

    def show_end(self, result: RunResult) -> None:
        self._end_streamed()
        self._terminal.idle()
        if result.outcome in {"cancelled", "paused"}:
            self._on_the_way(self._answered)
        try:
            write_answer(self._terminal, self._answered, result)
        finally:  # an answer that cannot be written is still in its session, which is named here
            self._answered = ""
            self._summary(result)

    def _summary(self, result: RunResult) -> None:
        if self._why is not None:
            self._terminal.note(str(self._why), "error")
        used = result.usage if self._usage is None else self._usage
        words = [result.outcome.replace("_", " "), count(self._steps, "request")]
        if self._steps:
            words.append(tokens(used))
        if self._cost:
            words.append(dollars(self._cost))
        if self._took is not None:
            words.append(seconds(self._took))
        self._forget_run()
        if result.session_id != self._named:  # a chat need not read it behind each turn
            words.append(f"session {result.session_id}")
            self._named = result.session_id
        self._terminal.note(" · ".join(words))

    def _forget_run(self) -> None:
        """Count anew with the next run that is started."""
        self._began, self._took, self._steps, self._usage, self._cost = None, None, 0, None, None

    def show_failure(self, failure: Failure, run_id: str | None, session_id: str | None) -> None:  # noqa: ARG002
        self._end_streamed()
        self._forget_run()
        self._terminal.idle()
        self._on_the_way(self._answered)
        self._terminal.end_line()
        if session_id is not None:
            self._terminal.note(f"failed · session {session_id}")


#: Events that are shown as a line of their own while a run goes on.
_WORTH_A_LINE = (
    events.SystemMessage,
    events.TierAttempted,
    events.PodFailed,
    events.CompactStart,
    events.CompactDone,
    events.CompactFailed,
    events.ExtractFailed,
    events.ConsolidateFailed,
    events.SessionForked,
    events.ApprovalRequested,
    events.ApprovalResolved,
    events.BudgetExceeded,
    events.Alert,
    events.Retry,
    events.StreamRestart,
    events.Lagged,
)
