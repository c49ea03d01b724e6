"""A chat's words from a person: a line editor, which also takes words while a turn goes on."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import termios
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

from actors.cli.chat.lines import LONGEST_LINE
from actors.cli.display.format import plain
from actors.cli.display.screen import Screen
from actors.cli.display.terminal import Terminal
from actors.cli.interrupts import Interrupted
from actors.cli.places import state_folder
from actors.cli.streams import is_lost
from protocol.errors import StoreError
from protocol.text import encodable

if TYPE_CHECKING:
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

#: Seconds within which a second Ctrl-C at an empty prompt leaves.
TWICE = 5.0
#: How often what goes on is drawn anew, in seconds.
_REFRESH = 0.1
_PROMPT = "> "
#: Has a terminal show its cursor, and take a paste as keys.
_PLAIN = b"\x1b[?25h\x1b[?2004l\r\n"


class Prompt:
    """Words from a person: a line editor with a history of its own.

    Ctrl-C drops what was typed; at an empty line, twice within a few seconds, it leaves, as Ctrl-D does.
    During ``steering`` the line stays below what is written.
    """

    def __init__(
        self,
        stdin: TextIO,
        terminal: Terminal,
        screen: Screen,
        completer: Completer | None = None,
        footer: Callable[[int], str] = lambda _: "",
    ) -> None:
        """``footer`` gives the line below the prompt for so many columns."""
        from prompt_toolkit import PromptSession  # noqa: PLC0415 - only a chat at a terminal pays for it
        from prompt_toolkit.completion import DummyCompleter  # noqa: PLC0415
        from prompt_toolkit.filters import Condition  # noqa: PLC0415
        from prompt_toolkit.input import create_input  # noqa: PLC0415
        from prompt_toolkit.output import ColorDepth, create_output  # noqa: PLC0415
        from prompt_toolkit.styles import Style  # noqa: PLC0415

        from actors.cli.chat.completion import wants_menu  # noqa: PLC0415

        self._stdin = stdin
        self._found = termios.tcgetattr(stdin.fileno())
        #: How the terminal was before keys were to wait as they are; None where it gathers them to lines.
        self._held: list[Any] | None = None
        self._terminal = terminal
        self._screen = screen
        self._footer = footer
        #: Gets what is sent during a turn; None between turns.
        self._take: Callable[[str], None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._began = asyncio.Event()
        self._draft = ""
        self._leaves = False
        self._session: PromptSession[str] = PromptSession(
            self._message,
            history=_history(),
            input=create_input(stdin),
            output=create_output(always_prefer_tty=True),  # standard output may be a file
            key_bindings=self._keys(),
            completer=completer or DummyCompleter(),
            complete_while_typing=Condition(
                lambda: wants_menu(self._session.default_buffer.document.text_before_cursor)
            ),
            enable_suspend=True,
            reserve_space_for_menu=5,
            bottom_toolbar=self._toolbar,
            style=Style.from_dict({"bottom-toolbar": "noreverse italic", "tail": "", "busy": "italic"}),
            color_depth=ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else None,
        )

    def close(self) -> None:
        """Leave the terminal as it was found, also where the process ends in the middle of a line."""
        with suppress(termios.error, OSError):
            termios.tcsetattr(self._stdin.fileno(), termios.TCSANOW, self._found)
            if self._reading is not None:
                os.write(self._stdin.fileno(), _PLAIN)

    # -- between turns -----------------------------------------------------------------------------

    async def ask(self, draft: str = "") -> str | None:
        """The next words; ``draft`` is there to be changed. None where the person leaves."""
        if self._leaves:
            return None
        draft, self._draft = draft or self._draft, ""
        try:
            return await self._ask(draft)
        finally:
            self._release()

    async def _ask(self, draft: str) -> str | None:
        pressed: float | None = None
        while True:
            try:
                with _enter_distinct_from_newline(self._stdin.fileno()):
                    words = None if draft or self._held is not None else self._typed_ahead()
                    if words is None:
                        words = await self._session.prompt_async(default=draft)
                return encodable(words).strip()
            except EOFError:
                if is_lost(self._stdin.fileno()):
                    raise Interrupted(signal.SIGHUP) from None
                return None
            except KeyboardInterrupt:
                now, draft = time.monotonic(), ""
                if self._session.default_buffer.text:
                    pressed = None
                elif pressed is not None and now - pressed < TWICE:
                    return None
                else:
                    pressed = now
                    self._terminal.note("Ctrl-C again leaves, and so does Ctrl-D")

    def _typed_ahead(self) -> str | None:
        """A line that was sent while nobody asked: the terminal has ended it with a newline, which the line
        editor would take for Ctrl-J. Raises EOFError where it was Ctrl-D.
        """
        from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead  # noqa: PLC0415

        earlier = get_typeahead(self._session.input)
        store_typeahead(self._session.input, earlier)
        descriptor = self._stdin.fileno()
        if earlier or not select.select([descriptor], [], [], 0)[0]:
            return None
        line = os.read(descriptor, LONGEST_LINE).decode("utf-8", "replace")
        if not line.strip("\0\x04"):  # how a Ctrl-D comes that was pressed as the terminal changed its mode
            raise EOFError
        self._terminal.note(f"> {line.rstrip()}", "user")
        return line

    # -- while a turn goes on ----------------------------------------------------------------------

    @asynccontextmanager
    async def steering(self, take: Callable[[str], None]) -> AsyncIterator[None]:
        """Have ``take`` get each line that is sent during the body. What is not sent at its end is there
        again when the next words are asked for. Ctrl-C is a signal, as it is without a line editor.
        """
        self._take = take
        try:
            await self._begin()
            yield
        finally:
            await self._end()  # keys that come until then are still those of the turn
            self._take = None

    @asynccontextmanager
    async def suspended(self) -> AsyncIterator[None]:
        """Leave the keyboard to somebody else during the body."""
        steers = self._reading is not None
        if steers:
            await self._end()
        self._release()
        try:
            yield
        finally:
            if steers and self._take is not None:
                await self._begin()

    async def _begin(self) -> None:
        self._began = asyncio.Event()
        self._reading = asyncio.create_task(self._read())
        began = asyncio.create_task(self._began.wait())
        await asyncio.wait({self._reading, began}, return_when=asyncio.FIRST_COMPLETED)
        began.cancel()

    async def _read(self) -> None:
        session, footer = self._session, self._session.bottom_toolbar
        session.refresh_interval, session.app.erase_when_done = _REFRESH, True
        session.bottom_toolbar = None  # it would come and go with each line that is written above
        try:
            self._hold()
            with suppress(EOFError, KeyboardInterrupt):
                await session.prompt_async(default=self._draft, handle_sigint=False, pre_run=self._note_begin)
        finally:
            session.refresh_interval, session.app.erase_when_done = 0, False
            session.bottom_toolbar = footer

    def _note_begin(self) -> None:
        self._screen.prompt_begins(self._session.app)
        self._began.set()

    def _hold(self) -> None:
        """Have keys wait as they are pressed, unseen, until the next line editor reads them. A terminal that
        gathers them to lines meanwhile would lose a Ctrl-D.
        """
        if self._held is None:
            self._held = found = termios.tcgetattr(self._stdin.fileno())
            keys = [found[0] & ~termios.ICRNL, *found[1:3], found[3] & ~(termios.ICANON | termios.ECHO)]
            control = list(found[6])
            control[termios.VMIN], control[termios.VTIME] = 1, 0
            termios.tcsetattr(self._stdin.fileno(), termios.TCSANOW, [*keys, *found[4:6], control])

    def _release(self) -> None:
        """Have the terminal gather keys to lines again."""
        held, self._held = self._held, None
        if held is not None:
            with suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(self._stdin.fileno(), termios.TCSANOW, held)

    async def _end(self) -> None:
        reading, self._reading = self._reading, None
        if reading is None:
            return
        app = self._session.app
        if app.future is not None and not app.future.done():
            self._draft = self._session.default_buffer.text
            app.exit(result="")
        elif not self._began.is_set():
            reading.cancel()
        await asyncio.wait({reading})
        self._screen.prompt_ended()
        error = None if reading.cancelled() else reading.exception()
        if error is not None and not is_lost(self._stdin.fileno()):
            raise error

    # -- what is shown -----------------------------------------------------------------------------

    def _message(self) -> Any:
        if self._take is None:
            return _PROMPT
        columns = self._session.app.output.get_size().columns
        return [("class:tail", self._screen.above_prompt(columns, plain=self._terminal.ascii)), ("", _PROMPT)]

    def _toolbar(self) -> str:
        line = self._footer(self._session.app.output.get_size().columns)
        return plain(line) if self._terminal.ascii else line

    # -- keys --------------------------------------------------------------------------------------

    def _keys(self) -> KeyBindings:
        """The key bindings: Alt-Enter, Ctrl-J, and Enter behind a backslash begin a new line; Enter alone
        sends.
        """
        from prompt_toolkit.filters import Condition  # noqa: PLC0415
        from prompt_toolkit.key_binding import KeyBindings  # noqa: PLC0415

        keys = KeyBindings()
        steers = Condition(lambda: self._take is not None)

        @keys.add("escape", "enter")
        @keys.add("c-j")
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        @keys.add("enter", filter=steers)
        def _(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            text = encodable(buffer.text)
            buffer.reset(append_to_history=bool(text.strip()))
            if text.strip() and self._take is not None:
                self._take(text)

        @keys.add("enter", filter=Condition(self._behind_backslash))
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.delete_before_cursor()
            event.current_buffer.insert_text("\n")

        @keys.add("c-c", filter=steers)
        def _(_: KeyPressEvent) -> None:
            signal.raise_signal(signal.SIGINT)

        @keys.add("c-d", filter=steers)
        def _(event: KeyPressEvent) -> None:
            if event.current_buffer.text:
                event.current_buffer.delete()
            elif not self._leaves:
                self._leaves = True
                self._terminal.note("leaving when this turn ends")

        return keys

    def _behind_backslash(self) -> bool:
        return self._session.default_buffer.document.text_before_cursor.endswith("\\")


@contextmanager
def _enter_distinct_from_newline(descriptor: int) -> Iterator[None]:
    """Have Enter come as a carriage return also where it was pressed before the line editor listens: a
    terminal makes a newline of it, which is what Ctrl-J sends.
    """
    before = termios.tcgetattr(descriptor)
    distinct = [before[0] & ~termios.ICRNL, *before[1:]]
    termios.tcsetattr(descriptor, termios.TCSANOW, distinct)
    try:
        yield
    finally:
        with suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(descriptor, termios.TCSANOW, before)


def _history() -> History:
    """What was typed in this chat and those before, kept for its owner alone; in memory if it cannot be."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory  # noqa: PLC0415

    class Kept(FileHistory):
        """The history file; a line that it cannot keep is no reason to end a chat."""

        def store_string(self, string: str) -> None:
            with suppress(OSError):
                super().store_string(encodable(string))

    try:
        path = state_folder() / "chat-history"
        path.touch(mode=0o600)
        path.open("rb").close()
    except (OSError, StoreError):
        return InMemoryHistory()
    return Kept(str(path))
