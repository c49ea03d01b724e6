"""What a person is asked above the screen: words, whether to remove an agent, whether to allow a call."""

from __future__ import annotations

from typing import ClassVar, Literal, TypeVar

import msgspec
from rich.text import Text
from textual.app import ComposeResult
from textual.await_complete import AwaitComplete
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import Footer, Static, TextArea

from actors.cli.display.format import clean, visible
from protocol.events import ApprovalRequested
from protocol.wire import encode

A = TypeVar("A")


class _Field(TextArea):
    """A field that has the keys of its screen act in turn: a binding acts before the keys that precede it are
    written, and words were sent without their end.
    """

    async def _on_key(self, event: Key) -> None:
        if action := {"enter": "send", "ctrl+j": "begin_line"}.get(event.key):
            event.stop()
            event.prevent_default()
            await self.screen.run_action(action)


class _Question(ModalScreen[A]):
    """A question that is answered once. Keys behind the answer, which it may still get, answer nothing: they
    would do the same again, and take away the screen below.
    """

    def dismiss(self, result: A | None = None) -> AwaitComplete:
        """Hand over the answer, and go."""
        return super().dismiss(result) if self.is_active else AwaitComplete()


class Words(_Question[str | None]):
    """Asks for words, which may have several lines; None where the person goes back."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "send"),
        Binding("ctrl+j", "begin_line", "new line"),
        Binding("escape", "dismiss(None)", "back", priority=True),
    ]

    def __init__(self, question: str, draft: str = "") -> None:
        super().__init__()
        self._question, self._words = question, _Field(draft)

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(Text(clean(self._question), "bold"))
            yield self._words
        yield Footer(compact=True)

    def write(self, character: str) -> None:
        """Add a character that was typed before the field had the focus."""
        self._words.insert(character)

    def action_send(self) -> None:
        """Hand over what is written, if anything is."""
        self.dismiss(self._words.text if self._words.text.strip() else None)

    def action_begin_line(self) -> None:
        """Begin a line; what is pasted may have several by itself."""
        self._words.insert("\n")


class Removal(_Question[bool]):
    """Asks once more before what is kept of an agent is removed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "dismiss(True)", "remove"),
        Binding("escape", "dismiss(False)", "keep"),
    ]

    def __init__(self, agent: str) -> None:
        super().__init__()
        self._agent = agent

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(Text(f"Remove {self._agent}?", "bold"))
            yield Static(
                "This deletes its conversation and its own files; what it worked on stays. r removes it."
            )
        yield Footer(compact=True)


Decision = Literal["approve", "always", "deny"]


class Approval(_Question[Decision | None]):
    """Asks whether a call may be made, and shows all of it; None where the person goes back."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss('approve')", "allow"),
        Binding("a", "dismiss('always')", "always"),
        Binding("n", "dismiss('deny')", "deny"),
        Binding("escape", "dismiss(None)", "later"),
    ]

    def __init__(self, agent: str, request: ApprovalRequested) -> None:
        super().__init__()
        self._agent, self._request = agent, request

    def compose(self) -> ComposeResult:
        request = self._request
        with Vertical():
            yield Static(Text(visible(f"{self._agent}: allow {request.tool}?"), "bold"))
            yield Static(Text(visible(request.why or ""), "yellow"))
            with VerticalScroll():
                yield Static(Text(arguments_text(request)))
        yield Footer(compact=True)


def arguments_text(request: ApprovalRequested) -> str:
    """The arguments of a call as JSON on several lines, in which all can be seen."""
    given = msgspec.json.format(encode(request.arguments)).decode()
    return "\n".join(map(visible, given.split("\n")))
