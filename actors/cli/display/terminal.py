"""``Terminal``: prints answers on standard output, all else (progress, tools, notes) on standard error."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from actors.cli.display.event_format import Line
from actors.cli.display.format import clean, plain, seconds, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from actors.cli.display.screen import Screen

#: The colour of each tone; NO_COLOR and terminals without colours are rich's to know.
STYLES = {
    "user": "bold cyan",
    "answer": "",
    "tool": "green",
    "error": "red",
    "note": "yellow",
    "quiet": "dim",
}
#: Signs that a terminal must be able to show for us to use them.
_SIGNS = "✓✗→…·─▸●■○"


class Terminal:
    """Where a command talks to a person: colours and a moving sign at a terminal, plain lines elsewhere.

    ``live`` says whether text may be written as it comes: only at a terminal can a piece of it be
    declared void later, not in a file.
    """

    def __init__(
        self, out: TextIO | None = None, err: TextIO | None = None, screen: Screen | None = None
    ) -> None:
        """``screen`` is what the streams belong to, where a person types meanwhile."""
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._screen = screen
        #: Has the keyboard free during its body, where somebody else reads from it.
        self.keyboard: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
        self.live = self._out.isatty()
        self._ascii = not _can_show(self._err)
        self._console = _console(self._err) if self._err.isatty() else None
        self._busy: _Busy | None = None
        self._midline = False
        #: What is to be shown once the person has answered, while one is asked.
        self._held: list[Callable[[], None]] | None = None

    @property
    def interactive(self) -> bool:
        """Whether what is said on standard error is said to a person at a terminal."""
        return self._console is not None

    @property
    def width(self) -> int:
        """How many columns a line may have, now: the window may have been resized."""
        return self._console.width if self._console is not None else 120

    # -- standard output -------------------------------------------------------------------------

    def write(self, text: str) -> None:
        """Put text of an answer on standard output as it is, but for control characters."""
        if not text:
            return
        if self._held is not None:
            self._held.append(partial(self.write, text))
            return
        self.idle()
        text = clean(text)
        self._out.write(text)
        self._out.flush()
        self._midline = not text.endswith("\n")

    @property
    def ascii(self) -> bool:
        """Whether it can show no signs but those of ASCII."""
        return self._ascii

    @property
    def renders(self) -> bool:
        """Whether Markdown can be rendered on standard output: a terminal that knows more than letters."""
        return self.live and not self._ascii and not _console(self._out).is_dumb_terminal

    def markdown(self, text: str) -> None:
        """Put a block of Markdown on standard output, rendered."""
        if self._held is not None:
            self._held.append(partial(self.markdown, text))
            return
        from actors.cli.display.markdown import rendered  # noqa: PLC0415 - only a terminal pays for it

        self.idle()
        console = _console(self._out)
        console.print(rendered(text, console), end="")

    def show_tail(self, text: str) -> None:
        """Show the end of an answer that is being written, where there is a place for it; else that it is."""
        if text.strip():
            self.busy("writing…")
        if self._screen is not None and self._screen.shows:
            self._screen.show_tail(text)

    def diff(self, text: str) -> None:
        """Print the lines of a diff on standard error, in colours."""
        if self._held is not None:
            self._held.append(partial(self.diff, text))
            return
        if self._console is not None and not self._ascii:
            from actors.cli.display.markdown import diff_lines  # noqa: PLC0415 - only a terminal pays for it

            self.idle()
            for line in diff_lines(clean(text)):
                self._console.print(line, soft_wrap=True)

    def end_line(self) -> None:
        """End the line that ``write`` has begun, if one is."""
        if self._midline:
            self.write("\n")

    def table(self, rows: list[tuple[str, ...]]) -> None:
        """Rows on standard output, in columns; the first is the heading."""
        rows = [tuple(map(visible, row)) for row in rows]  # a line each, whatever is in them
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.row(Line("answer", "  ".join(cells).rstrip()))

    def row(self, line: Line) -> None:
        """Print one of many lines on standard output: at a terminal it is cut to its width."""
        if self.live:
            console = _console(self._out)
            text = _text(line, self._shown)
            text.truncate(console.width, overflow="ellipsis" if not self._ascii else "crop")
            console.print(text, soft_wrap=True)
        else:
            self.line(line)

    def line(self, line: Line) -> None:
        """Print a line that is itself what was asked for, on standard output, coloured at a terminal."""
        if self.live:
            _console(self._out).print(_text(line, self._shown), soft_wrap=True)
        else:
            self.write(self._shown(line.text) + "\n")

    # -- standard error --------------------------------------------------------------------------

    def say(self, line: Line) -> None:
        """Print a line about what goes on, on standard error."""
        if self._held is not None:
            self._held.append(partial(self.say, line))
            return
        self.idle()
        self.end_line()
        if self._console is not None:
            self._console.print(_text(line, self._shown), soft_wrap=True)
        else:
            self._err.write(clean(self._shown(line.text)) + "\n")
            self._err.flush()

    def note(self, text: str, tone: str = "quiet") -> None:
        """Print a line in words."""
        self.say(Line(tone, text))

    def busy(self, text: str) -> None:
        """Show that something goes on, until something else is shown; only at a terminal."""
        if self._screen is not None and self._screen.shows:
            self._screen.show(clean(self._shown(text)))
            return
        if self._console is None or self._held is not None or (self.live and self._midline):
            return
        if self._busy is None:
            self._busy = _Busy(self._console, text, dots=not self._ascii)
        else:
            self._busy.say(text)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Hold back all else during the body, in which a person is asked; it is shown behind the answer."""
        self.idle()
        self.end_line()
        self._held = []
        try:
            yield
        finally:
            held, self._held = self._held, None
            for show in held:
                show()

    def ask(self, lines: Iterable[Line], prompt: str) -> None:
        """Print the lines of a question, and what stands before its answer."""
        for line in lines:
            assert self._console is not None
            self._console.print(_text(line, self._shown), soft_wrap=True)
        self._err.write(prompt)
        self._err.flush()

    def idle(self) -> None:
        """Show no more that something goes on."""
        if self._screen is not None:
            self._screen.idle()
        if self._busy is not None:
            self._busy.stop()
            self._busy = None

    def _shown(self, text: str) -> str:
        return plain(text) if self._ascii else text


class _Busy:
    """A moving sign with words behind it, on the last line of a terminal, until it is stopped."""

    def __init__(self, console: Console, words: str, *, dots: bool) -> None:
        from rich.live import Live  # noqa: PLC0415 - only a terminal pays for rich
        from rich.spinner import Spinner  # noqa: PLC0415

        self._words = _Elapsed(words)
        spinner: Any = Spinner("dots" if dots else "line", style="cyan")
        spinner.text = self._words
        self._live = Live(spinner, console=console, transient=True, refresh_per_second=10)
        self._live.start()
        console.show_cursor()  # rich hides it, and whoever stops or kills the process would be left without

    def say(self, words: str) -> None:
        """Other words from the next frame on; the time behind them goes on."""
        self._words.words = words

    def stop(self) -> None:
        """Take the sign away."""
        self._live.stop()


class _Elapsed:
    """Words with the time since they were first shown, drawn anew with each frame."""

    def __init__(self, words: str) -> None:
        self.words = words
        self._since = time.monotonic()

    def __rich__(self) -> Text:
        from rich.text import Text  # noqa: PLC0415

        passed = time.monotonic() - self._since
        return Text(
            clean(f"{self.words}  {seconds(passed)}" if passed >= 1 else self.words),
            style="dim",
            no_wrap=True,
            overflow="ellipsis",
        )


def _console(stream: TextIO) -> Console:
    from rich.console import Console  # noqa: PLC0415

    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    if console.is_dumb_terminal and "COLUMNS" not in os.environ:  # rich takes it for one of 80 columns
        with suppress(OSError):
            columns, lines = os.get_terminal_size(stream.fileno())
            console.size = (columns or console.width, lines or console.height)
    return console


def _text(line: Line, shown: Any) -> Text:
    from rich.text import Text  # noqa: PLC0415

    return Text(clean(shown(line.text)), style=STYLES[line.tone])


def _can_show(stream: TextIO) -> bool:
    try:
        _SIGNS.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
