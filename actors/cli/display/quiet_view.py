"""What is shown of a run to whoever wants its answer alone."""

from __future__ import annotations

from actors.cli.display.answer import write_answer
from actors.cli.display.event_format import event_line
from actors.cli.display.terminal import Terminal
from actors.runtime.events.encoded import EncodedEvent
from protocol import events
from protocol.errors import Failure
from protocol.results import RunResult


class QuietView:
    """Nothing but the last answer, on standard output. Why a run stopped short of one is still said."""

    def __init__(self, terminal: Terminal) -> None:
        self.shown: set[tuple[str, int]] = set()
        self._terminal = terminal
        self._answer = ""
        self._why: Failure | None = None

    def note(self, text: str) -> None:
        """Show nothing of the set-up."""

    def show_encoded(self, event: EncodedEvent) -> None:
        match event.event:
            case events.RunStart():
                self._answer, self._why = "", None
            case events.AssistantMessage(item=item):
                self._answer = "" if item.calls else item.text
            case events.RunEnd(error=error):
                self._why = error
            case events.Alert() | events.ExtractFailed() | events.ConsolidateFailed() as failure:
                self._terminal.say(event_line(failure, self._terminal.width))

    def show_sub_agent(self, event: EncodedEvent, name: str) -> None:
        """Sub-agents are not shown."""

    def show_end(self, result: RunResult) -> None:
        if self._why is not None:
            self._terminal.note(str(self._why), "error")
        write_answer(self._terminal, self._answer, result)

    def show_failure(self, failure: Failure, run_id: str | None, session_id: str | None) -> None:
        """Show nothing: the command says why it failed."""
