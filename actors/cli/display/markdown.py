"""Markdown as a terminal shows it: headings, lists, tables and code, within the width and in its colours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown
from rich.segment import Segment, Segments
from rich.style import Style
from rich.syntax import Syntax
from rich.text import Text

#: Columns of the widest lines: longer ones are hard to read.
_WIDEST = 100


class _Heading(Heading):
    """Rich's own stands in the middle, in a box."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        self.text.stylize(Style(bold=True, underline=self.tag == "h1"))
        yield self.text


class _Code(CodeBlock):
    """Code as it is, in the colours of the terminal's own palette."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Syntax(
            str(self.text).rstrip(),
            self.lexer_name,
            theme="ansi_dark",
            background_color="default",
            word_wrap=True,
            padding=(0, 2),
        )


class _Markdown(Markdown):
    elements: ClassVar[dict[str, Any]] = {
        **Markdown.elements,
        "heading_open": _Heading,
        "fence": _Code,
        "code_block": _Code,
    }

    def __init__(self, text: str) -> None:
        super().__init__(text, code_theme="ansi_dark", hyperlinks=False)
        # What looks like HTML is shown: rich would leave it out.
        parser = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
        self.parsed = parser.parse(text)


def rendered(text: str, console: Console) -> Segments:
    """A block of Markdown as lines of at most the console's width, without blanks at their ends."""
    options = console.options.update(width=min(console.width, _WIDEST))
    segments: list[Segment] = []
    for line in console.render_lines(_Markdown(text), options, pad=False):
        segments += [*_without_blanks(line), Segment.line()]
    while len(segments) > 1 and segments[-2].text == "\n" == segments[-1].text:
        segments.pop()
    while segments and segments[0].text == "\n":
        segments.pop(0)
    return Segments(segments)


def _without_blanks(line: list[Segment]) -> list[Segment]:
    """A line without what is blank at its end."""
    kept = list(line)
    while kept and not kept[-1].text.strip():
        kept.pop()
    if kept:
        last = kept.pop()
        kept.append(Segment(last.text.rstrip(), last.style))
    return kept


def diff_lines(text: str) -> Iterator[Text]:
    """The lines of a diff, with what was added and what was taken away in their colours."""
    styles = {"+": "green", "-": "red", "@": "cyan"}
    for line in text.splitlines():
        yield Text(f"  {line}", style=styles.get(line[:1], "dim"))
