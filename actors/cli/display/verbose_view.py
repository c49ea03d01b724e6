"""What is shown of a run to whoever wants to see all of it."""

from __future__ import annotations

from actors.cli.display.answer_writer import AnswerWriter
from actors.cli.display.event_format import Line
from actors.cli.display.format import tokens
from actors.cli.display.terminal import Terminal
from actors.cli.display.views import PeopleView
from protocol import events
from protocol.events import Event
from protocol.items import AssistantItem, ThinkingPart

#: Lines of a tool's result that are shown.
_LINES = 12


class VerboseView(PeopleView):
    """A PeopleView that shows reasoning, the beginning of each result, and what each request took."""

    def __init__(
        self, terminal: Terminal, *, structured: bool = False, writer: AnswerWriter | None = None
    ) -> None:
        super().__init__(terminal, structured=structured, writer=writer)
        self._shown_on = terminal

    def show(self, event: Event) -> None:
        if isinstance(event, events.AssistantMessage):
            self._reasoning(event.item)
        super().show(event)
        if isinstance(event, events.AssistantMessage) and event.usage is not None:
            self._shown_on.note(f"  {tokens(event.usage)}")
        elif isinstance(event, events.ToolResulted):
            self._result(event.item.text)

    def _reasoning(self, item: AssistantItem) -> None:
        thought = "\n".join(part.text for part in item.content if isinstance(part, ThinkingPart)).strip()
        for line in thought.splitlines():
            self._shown_on.say(Line("quiet", f"  ~ {line}"))

    def _result(self, text: str) -> None:
        lines = text.strip().splitlines()
        for line in lines[:_LINES]:
            self._shown_on.note(f"  | {line}")
        if len(lines) > _LINES:
            self._shown_on.note(f"  | … {len(lines) - _LINES} more lines")
