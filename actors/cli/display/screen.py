"""``Screen``: a terminal that is written to while a person types: text goes above the line that is typed."""

from __future__ import annotations

import asyncio
import io
import time
from typing import TYPE_CHECKING, TextIO, cast

from actors.cli.display.format import seconds

if TYPE_CHECKING:
    from prompt_toolkit.application import Application

#: Frames of the moving sign, and how many there are in a second.
_FRAMES, _PER_SECOND = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", 10
_ASCII_FRAMES = "-\\|/"


class Screen:
    """The two output streams of a chat, and what goes on at the moment.

    While a prompt is shown (``shows``) whole lines are written above it, in order; the line that is not
    whole yet, the words of what goes on and the end of an answer that is being written belong into the
    prompt, which asks for them. Otherwise text is written as it comes.
    """

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self.out = self._above(out)
        self.err = self._above(err)
        self._app: Application[str] | None = None
        self._held: list[tuple[TextIO, str]] = []
        self._scheduled = False
        self._words = ""
        self._since = 0.0
        self._tail = ""

    def _above(self, stream: TextIO) -> TextIO:
        return cast("TextIO", _Above(stream, self)) if stream.isatty() else stream

    # -- what is written ---------------------------------------------------------------------------

    def put(self, stream: TextIO, text: str) -> None:
        """Write ``text``, above the prompt where one is shown."""
        if self._app is None:
            stream.write(text)
            return
        self._held.append((stream, text))
        if not self._scheduled and "\n" in text:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._write_above)

    def _write_above(self) -> None:
        """Take the prompt away, write what is held back, and have it drawn anew below."""
        self._scheduled = False
        app = self._app
        if app is None or app.future is None or app.future.done():
            return  # at its end it is all written
        app.renderer.erase()
        self._write_held(whole_lines=True)
        app.invalidate()

    def _write_held(self, *, whole_lines: bool) -> None:
        held, self._held = self._held, []
        last = max((n for n, (_, text) in enumerate(held) if "\n" in text), default=-1)
        for number, (stream, text) in enumerate(held):
            if whole_lines and number >= last:
                head, newline, rest = text.rpartition("\n")
                stream.write(head + newline)
                if rest:
                    self._held.append((stream, rest))
            else:
                stream.write(text)
        for stream in {stream for stream, _ in held}:
            stream.flush()

    # -- the prompt --------------------------------------------------------------------------------

    @property
    def shows(self) -> bool:
        """Whether a prompt is shown, which takes what goes on."""
        return self._app is not None

    def prompt_begins(self, app: Application[str]) -> None:
        """Note that a prompt is shown from now on."""
        self._app = app

    def prompt_ended(self) -> None:
        """Note that the prompt is gone, and write what was held back."""
        self._app = None
        self._write_held(whole_lines=False)

    def show(self, words: str) -> None:
        """Say what goes on, until ``idle``; the time behind it goes on with other words."""
        if not self._words:
            self._since = time.monotonic()
        self._words = words
        self._redraw()

    def show_tail(self, text: str) -> None:
        """Show the end of what is being written."""
        self._tail = text
        self._redraw()

    def idle(self) -> None:
        """Note that nothing goes on."""
        self._words = ""

    def _redraw(self) -> None:
        if self._app is not None:
            self._app.invalidate()

    def above_prompt(self, columns: int, *, lines: int = 6, plain: bool = False) -> str:
        """What belongs between what was written and the prompt: whole lines, or nothing."""
        shown = "".join(text for _, text in self._held).rpartition("\n")[2] or self._tail
        tail = _broken("\n".join(shown.rstrip("\n").split("\n")[-lines:]), columns)[-lines:]
        parts = tail if shown.strip() else []
        if self._words:
            passed = time.monotonic() - self._since
            frames = _ASCII_FRAMES if plain else _FRAMES
            sign = frames[int(passed * _PER_SECOND) % len(frames)]
            words = f"{sign} {self._words}" + (f"  {seconds(passed)}" if passed >= 1 else "")
            parts.append(_broken(words, columns)[0])
        return "".join(f"{part}\n" for part in parts)


def _broken(text: str, columns: int) -> list[str]:
    """Lines as a terminal of so many columns would break them, letters of two columns counted so."""
    from rich.cells import chop_cells  # noqa: PLC0415 - only where a prompt is shown

    width = max(columns - 1, 2)
    return [piece for line in text.split("\n") for piece in chop_cells(line, width) or [""]]


class _Above(io.TextIOBase):
    """A stream to the terminal of a Screen."""

    def __init__(self, stream: TextIO, screen: Screen) -> None:
        self._stream = stream
        self._screen = screen

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def write(self, text: str) -> int:
        self._screen.put(self._stream, text)
        return len(text)

    def flush(self) -> None:
        if not self._screen.shows:
            self._stream.flush()

    def close(self) -> None:
        """Leave the stream as it is, since it is another's. Python closes whatever it no longer needs, and
        from 3.13 on prints what goes wrong there.
        """

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()
