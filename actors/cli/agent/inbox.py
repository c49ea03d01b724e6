"""``Inbox``: the private socket of an agent, a message a line; and what such a line says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from actors.cli.peers import why_no_person_at
from actors.runtime.user_folders import make_private, runtime_path
from protocol.commands import Approve, Command, Disapprove
from protocol.errors import ChildNotListening, InvalidInput, WireError
from protocol.text import UNDECODABLE
from protocol.wire import decode_command

#: Bytes of the longest path that every system takes for a socket.
LONGEST_PATH = 100
#: Bytes of the longest line; what is longer is passed over.
LONGEST_LINE = 16 << 20
_READ = 1 << 16
#: Bytes of answers that may wait for who does not read them; further ones are dropped.
_UNREAD = 1 << 16


class Message(NamedTuple):
    """What a line asks for: words of a user, an end, or a command of the protocol."""

    kind: Literal["user", "cancel", "shutdown", "command"]
    text: str = ""
    command: Command | None = None


def message_of(line: bytes) -> Message | None:
    """What a line says; None for an empty one. Raises InvalidInput."""
    text = line.decode("utf-8", "replace").strip("\r\n")
    word, _, rest = text.strip().partition(" ")
    if not word:
        return None
    if word.startswith("{"):
        try:
            return Message("command", command=decode_command(line))
        except WireError as error:
            raise InvalidInput(f"not a command of the protocol: {error}") from None
    if word in {"cancel", "shutdown"} and not rest:
        return Message(word)  # type: ignore[arg-type]
    if word == "user" and rest.strip():
        return Message("user", rest.strip())
    if word == "user-json":
        return Message("user", _json_text(rest))
    raise InvalidInput(
        f"not a message: {text!r:.80}",
        hint='send `user TEXT`, `user-json "TEXT"`, `cancel`, `shutdown`, or a command as JSON',
    )


def _json_text(text: str) -> str:
    try:
        said = msgspec.json.decode(text, type=str)
    except UNDECODABLE as error:
        raise InvalidInput(f"user-json must be followed by a JSON string: {error}") from None
    if not said.strip():
        raise InvalidInput("the text of user-json is empty")
    return said


def default_path(agent_id: str) -> Path:
    """Where an agent listens that was given no path: in the user's runtime folder, or where that has none, or
    a path too long for sockets, in one of the user's beside temporary files.
    """
    folders = (runtime_path(), Path(tempfile.gettempdir(), f"polypod-{os.getuid()}"))
    paths = [folder / "agents" / f"{agent_id}.inbox" for folder in folders if folder is not None]
    return next((path for path in paths if len(os.fsencode(path)) <= LONGEST_PATH), paths[-1])


#: Takes a message, and a function by which to answer it.
Take = Callable[[Message, Callable[[dict[str, Any]], None]], None]


class Inbox:
    """Listens on a socket. The newest connection takes the place of the one before, of which what has arrived
    is still taken. Each line is answered on its connection, with its number there.
    """

    def __init__(self, path: Path, take: Take, complain: Callable[[InvalidInput], None]) -> None:
        self.path = path
        self._take, self._complain = take, complain
        self._server: asyncio.Server | None = None
        self._identity: tuple[int, int] | None = None
        self._current: asyncio.StreamWriter | None = None

    async def listen(self) -> None:
        """Be reachable. Raises ChildNotListening where that cannot be."""
        if len(os.fsencode(self.path)) > LONGEST_PATH:
            raise ChildNotListening(f"the path of the inbox {self.path} is longer than {LONGEST_PATH} bytes")
        try:
            make_private(self.path.parent)
            await self._remove_stale()
            listening = socket.socket(socket.AF_UNIX)
            before = os.umask(0o177)
            try:
                listening.bind(os.fspath(self.path))
            finally:
                os.umask(before)
            self._server = await asyncio.start_unix_server(self._meet, sock=listening)
            self._identity = self._found()
        except OSError as error:
            raise ChildNotListening(f"the inbox {self.path}: {error.strerror or error}") from error

    def is_there(self) -> bool:
        """Whether the path still leads here."""
        return self._identity is not None and self._found() == self._identity

    async def close(self) -> None:
        """Listen no more; the socket is removed, unless another one stands in its place."""
        if self.is_there():
            with contextlib.suppress(OSError):
                self.path.unlink()
        if self._server is not None:
            self._server.close()
        if self._current is not None:
            self._current.close()

    def _found(self) -> tuple[int, int] | None:
        try:
            status = self.path.lstat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    async def _remove_stale(self) -> None:
        """Remove a socket that nobody listens on. Raises ChildNotListening where somebody does."""
        try:
            is_socket = stat.S_ISSOCK(self.path.lstat().st_mode)
        except FileNotFoundError:
            return
        if not is_socket:
            raise ChildNotListening(f"the inbox {self.path} is not a socket")
        try:
            _, writer = await asyncio.open_unix_connection(self.path)
        except (ConnectionRefusedError, FileNotFoundError):
            self.path.unlink(missing_ok=True)
            return
        writer.close()
        raise ChildNotListening(f"another agent listens on {self.path}")

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        older, self._current = self._current, writer
        if older is not None:
            with contextlib.suppress(OSError):  # what it has sent by now is still read
                older.get_extra_info("socket").shutdown(socket.SHUT_RD)
        try:
            await self._read(reader, writer)
        except OSError:
            pass
        finally:
            writer.close()
            if self._current is writer:
                self._current = None

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, rest, passing = 0, bytearray(), False
        while data := await reader.read(_READ):
            rest += data
            *lines, last = bytes(rest).split(b"\n") if b"\n" in data else [bytes(rest)]
            rest = bytearray(last)
            for line in lines:
                number += 1
                self._handle(line, number, writer, too_long=passing or len(line) > LONGEST_LINE)
                passing = False
            if len(rest) > LONGEST_LINE:
                rest.clear()
                passing = True
        if rest or passing:
            self._handle(bytes(rest), number + 1, writer, too_long=passing)

    def _handle(self, line: bytes, number: int, writer: asyncio.StreamWriter, *, too_long: bool) -> None:
        def answer(said: dict[str, Any]) -> None:
            transport = writer.transport
            if not transport.is_closing() and transport.get_write_buffer_size() < _UNREAD:
                writer.write(msgspec.json.encode({"line": number, **said}) + b"\n")

        try:
            message = message_of(b"" if too_long else line)
            if message is not None and isinstance(message.command, Approve | Disapprove):
                _check_person(writer)
        except InvalidInput as error:
            self._complain(error)
            answer(error_line(error))
            return
        if too_long:
            refused = InvalidInput(f"a line of more than {LONGEST_LINE} bytes is skipped")
            self._complain(refused)
            answer(error_line(refused))
        elif message is not None:
            self._take(message, answer)


def _check_person(writer: asyncio.StreamWriter) -> None:
    """Raise InvalidInput where it is a program that an agent has started that answers for a person."""
    if (why := why_no_person_at(writer.get_extra_info("socket"))) is not None:
        raise InvalidInput(why)


def error_line(error: BaseException) -> dict[str, Any]:
    """An error in words, under both names by which readers look for it."""
    message = getattr(error, "message", None) or str(error) or type(error).__name__
    hint = getattr(error, "hint", None)
    text = f"{message}; {hint}" if hint else message
    return {"type": "error", "message": text, "error": text, "kind": type(error).__name__}
