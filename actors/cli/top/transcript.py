"""What one agent or pod has said and done, line by line, and the answer that is being given."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Footer, RichLog, Static

from actors.cli.display.event_format import Line, call_words, entry_line, event_line
from actors.cli.display.format import clean
from actors.cli.display.terminal import STYLES
from protocol import events
from protocol.entries import Entry, OtherEntry
from protocol.errors import PolypodError

#: Lines that are kept, those of an unfinished answer that are shown, and events that are read at once.
_KEPT, _TAIL, _AT_ONCE = 2000, 6, 100
#: Characters that are quoted of what is not an answer.
_QUOTED = 300
#: Seconds between two looks whether there is more, where what was followed has ended.
_LOOK = 0.5

#: Opens what is followed; what it raises is shown in a line.
Source = Callable[[], AsyncGenerator["events.Event | Entry | OtherEntry", None]]


def text_of(line: Line) -> Text:
    """A line in the colour of its tone; nothing in it is taken for markup."""
    return Text(clean(line.text), STYLES[line.tone])


def lines_of_event(event: events.Event | Entry | OtherEntry) -> Iterator[Line]:
    """What a transcript shows of an event: words whole, all else in a line, pieces of an answer not."""
    match event:
        case events.UserMessage():
            yield Line("user", event.item.text)
        case events.AssistantMessage():
            if event.item.text:
                yield Line("answer", event.item.text)
            yield from (Line("tool", f"▸ {call_words(call, _QUOTED)}") for call in event.item.calls)
        case events.Lagged() | events.Retry() | events.StreamRestart():
            yield event_line(event, _QUOTED)
        case events.Event():
            if event.durable:
                yield event_line(event, _QUOTED)
        case _:
            yield entry_line(event, _QUOTED)


def unfinished(piece: str, event: events.Event | Entry | OtherEntry) -> str:
    """The unfinished answer after ``event``."""
    match event:
        case events.TextDelta():
            return piece + event.text
        case events.AssistantMessage() | events.StreamRestart() | events.RunEnd() | events.AgentStopped():
            return ""
    return piece


class Transcript(Screen[None]):
    """What one has said and done, from its beginning on, live."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "back", "back")]

    def __init__(self, key: str, title: str, source: Source, lives: Callable[[], bool]) -> None:
        super().__init__()
        #: What the list calls the one that is shown.
        self.key = key
        self._title, self._source, self._lives = title, source, lives
        self._lines: deque[Line] = deque(maxlen=_KEPT)
        self._unwritten, self._more = self._lines.copy(), asyncio.Event()
        self._log = RichLog(wrap=True, min_width=20, max_lines=_KEPT)
        self._piece, self._shown_piece = "", Static(id="piece")

    def compose(self) -> ComposeResult:
        yield Static(Text(clean(self._title), no_wrap=True, overflow="ellipsis"), id="title")
        yield self._log
        yield self._shown_piece
        yield Static(id="line")
        yield Footer(compact=True)

    def on_mount(self) -> None:
        """Begin to follow."""
        self._log.focus()
        self._write()
        self._follow()

    def on_resize(self) -> None:
        """Fold the lines anew."""
        self._write_again()

    def action_back(self) -> None:
        """Go back to the list, once: a second key may come before this has gone."""
        if self.is_active:
            self.app.pop_screen()

    @work
    async def _follow(self) -> None:
        """Show all there is and what comes, once more where one that had ended lives again."""
        begins = True
        while True:
            if begins:
                await self._follow_once()
            await asyncio.sleep(_LOOK)
            begins = self._lives()

    async def _follow_once(self) -> None:
        self._lines.clear()
        self._write_again()
        shown = 0
        try:
            async with aclosing(self._source()) as source:
                async for event in source:
                    self._show(event)
                    shown += 1
                    if shown % _AT_ONCE == 0:  # many may be there already, and keys are to go on
                        await asyncio.sleep(0)
        except (PolypodError, OSError) as error:
            self._add(Line("error", str(error)))

    def _show(self, event: events.Event | Entry | OtherEntry) -> None:
        for line in lines_of_event(event):
            self._add(line)
        piece = unfinished(self._piece, event)
        if piece != self._piece:
            self._piece = piece
            last = "\n".join(piece.splitlines()[-_TAIL:])
            self._shown_piece.update(Text(clean(last), "dim"))

    def _add(self, line: Line) -> None:
        self._lines.append(line)
        self._unwritten.append(line)
        self._more.set()

    def _write_again(self) -> None:
        self._log.clear()
        self._unwritten = self._lines.copy()
        self._more.set()

    @work
    async def _write(self) -> None:
        """Write the lines, which takes a millisecond each: keys have their turn between any two, and what is
        pushed out before its turn is never written.
        """
        while await self._more.wait():
            self._more.clear()
            while self._unwritten:
                self._log.write(text_of(self._unwritten.popleft()))
                await asyncio.sleep(0)
