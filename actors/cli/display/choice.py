"""Which view shows a run: as much as was asked for, to a person or a program."""

from __future__ import annotations

from typing import Literal

from actors.cli.display.answer_writer import MarkdownWriter
from actors.cli.display.quiet_view import QuietView
from actors.cli.display.terminal import Terminal
from actors.cli.display.verbose_view import VerboseView
from actors.cli.display.views import JsonView, PeopleView, View

#: How much is shown of a run on its way.
Loudness = Literal["quiet", "normal", "verbose"]


def view_of(
    terminal: Terminal,
    *,
    as_json: bool,
    loudness: Loudness = "normal",
    structured: bool = False,
    renders: bool = False,
) -> View:
    """The view that was asked for; ``structured`` is that the answer has to fit a schema, ``renders`` that
    its Markdown is rendered where the terminal can show that.
    """
    if as_json:
        return JsonView()
    if loudness == "quiet":
        return QuietView(terminal)
    kind = VerboseView if loudness == "verbose" else PeopleView
    writer = MarkdownWriter(terminal) if renders and terminal.renders else None
    return kind(terminal, structured=structured, writer=writer)
