"""A child's pipes as the streams that the SDK reads and writes: messages of JSON, a line each."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn, Self

import anyio
import msgspec
from mcp.client._transport import ReadStream
from mcp.shared.message import SessionMessage
from mcp_types import (
    CONNECTION_CLOSED,
    INTERNAL_ERROR,
    ContentBlock,
    ErrorData,
    JSONRPCError,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)
from pydantic import TypeAdapter, ValidationError

from actors.runtime.children.pipes import ChildInput, ChildOutput
from actors.runtime.closing import Closing
from actors.tools.mcp.content import simplify_content
from actors.tools.mcp.listing import simplify_listing
from actors.tools.mcp.readable import decoded
from protocol.errors import ChildNotListening, LineTooLong

#: Bytes of a message that is read: pictures and files come as base64 within one line.
LONGEST_MESSAGE = 1 << 26
#: Bytes that may wait to be written before who sends more has to wait.
_MOST_UNWRITTEN = 1 << 18
#: Messages that are read in a row before the loop has its turn.
_IN_A_ROW = 16

#: How an answer begins whose result, or error, is behind the id of its call; how one does where that stands
#: first; and how that one ends.
_VERSION, _ID = rb'"jsonrpc"\s*:\s*"2\.0"', rb'"id"\s*:\s*(0|[1-9]\d*|"[ !#-\[\]-~]*")'
_RESULT = rb'"(?:result|error)"\s*:'
_ID_FIRST = re.compile(
    rb"\s*\{\s*(?:%b\s*,\s*)?%b\s*,\s*(?:%b\s*,\s*)?%b" % (_VERSION, _ID, _VERSION, _RESULT)
)
_ANSWER_FIRST = re.compile(rb"\s*\{\s*(?:%b\s*,\s*)?%b" % (_VERSION, _RESULT))
_ID_LAST = re.compile(rb",\s*%b\s*(?:,\s*%b\s*)?\}\s*$" % (_ID, _VERSION))

_blocks: TypeAdapter[ContentBlock] = TypeAdapter(ContentBlock)


class ServerOutput(Closing):
    """The messages that a server writes. What is none is handed to ``stray``, and passed over."""

    def __init__(
        self, output: ChildOutput, stray: Callable[[str], object], over: Callable[[], object]
    ) -> None:
        """``over`` is called once no more comes."""
        self._output = output
        self._stray = stray
        self._over = over
        self._in_a_row = 0

    async def receive(self) -> SessionMessage:
        """The next message. Raises anyio.EndOfStream."""
        while True:
            self._in_a_row += 1
            if self._in_a_row % _IN_A_ROW == 0:
                await asyncio.sleep(0)
            try:
                line = await self._output.readline(LONGEST_MESSAGE)
            except LineTooLong as error:
                answer = _in_place_of(error)
                if answer is not None:
                    return SessionMessage(answer)
                if _may_be_answer(error):
                    self._stray(f"[polypod: {_too_long()} names no call, so the connection was closed]")
                    self._end()
                self._stray(f"[polypod: {_too_long()} was skipped]")
                continue
            if not line:
                self._end()
            if line.isspace():
                continue
            message = _message(line)
            if message is None:
                self._stray(line[:1000].decode("utf-8", "replace"))
                continue
            return SessionMessage(without_oddities(message))

    def _end(self) -> NoReturn:
        self._over()
        raise anyio.EndOfStream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """Read no more."""
        self._output.close()


class ServerInput(Closing):
    """The messages that a server reads. None is ever written in part, though who sends it is cancelled."""

    def __init__(self, stdin: ChildInput, over: Callable[[], object]) -> None:
        """``over`` is called where it reads no more."""
        self._stdin = stdin
        self._over = over
        self._unwritten: deque[bytes] = deque()
        self._size = 0
        self._writer: asyncio.Task[None] | None = None
        #: Set while there is room for more.
        self._room = asyncio.Event()
        self._room.set()
        self._broken = False

    async def send(self, item: SessionMessage, /) -> None:
        """Write a message, or have it written. Raises anyio.BrokenResourceError."""
        if self._broken:
            raise anyio.BrokenResourceError
        data = item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
        if self._writer is None:
            try:
                written = self._stdin.write_some(data)
            except ChildNotListening:
                self._break()
                raise anyio.BrokenResourceError from None
            if written == len(data):
                return
            data = data[written:]
        self._unwritten.append(data)
        self._size += len(data)
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write())
        if self._size > _MOST_UNWRITTEN:
            self._room.clear()
            await self._room.wait()

    async def _write(self) -> None:
        try:
            while self._unwritten:
                data = self._unwritten.popleft()
                await self._stdin.write(data)
                self._size -= len(data)
                if self._size <= _MOST_UNWRITTEN:
                    self._room.set()
        except ChildNotListening:
            self._break()
        finally:
            self._writer = None
            self._room.set()

    def _break(self) -> None:
        self._broken = True
        self._unwritten.clear()
        self._size = 0
        self._over()

    async def aclose(self) -> None:
        """Write no more, and let the server read the end."""
        self._broken = True
        if self._writer is not None:
            self._writer.cancel()
        self._room.set()
        self._stdin.close()


class MendedStream:
    """A stream of the SDK's own, such as that of HTTP, whose messages are mended as those of a child are."""

    def __init__(self, stream: ReadStream[SessionMessage | Exception]) -> None:
        self._stream = stream

    @property
    def last_context(self) -> Any:
        """The context of who sent the last message, where the stream knows it."""
        return getattr(self._stream, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        """The next message."""
        return _mended(await self._stream.receive())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        return _mended(await self._stream.__anext__())

    async def aclose(self) -> None:
        """Read no more."""
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        suppressed: bool | None = await self._stream.__aexit__(kind, error, trace)
        return suppressed


def without_oddities(message: Any) -> Any:
    """The message, with a list of tools, and with blocks of a result, that the SDK takes."""
    if isinstance(message, JSONRPCResponse):
        if "tools" in message.result:
            simplify_listing(message.result)
        if "content" in message.result:
            simplify_content(message.result, _is_block)
    return message


def _is_block(given: Any) -> bool:
    try:
        _blocks.validate_python(given, by_name=False)
    except ValidationError:
        return False
    return True


def _mended(item: SessionMessage | Exception) -> SessionMessage | Exception:
    if isinstance(item, SessionMessage):
        without_oddities(item.message)
    return item


def _in_place_of(too_long: LineTooLong) -> JSONRPCError | None:
    """An answer that is an error, in the place of one that is too long to be read. None for a line that does
    not say near its beginning or its end which call it answers.
    """
    found = _ID_FIRST.match(too_long.begin)
    if found is None and _ANSWER_FIRST.match(too_long.begin):
        found = _ID_LAST.search(too_long.end)
    if found is None:
        return None
    error = ErrorData(code=CONNECTION_CLOSED, message=f"its answer is {_too_long()}")
    return JSONRPCError(jsonrpc="2.0", id=msgspec.json.decode(found[1]), error=error)


def _may_be_answer(too_long: LineTooLong) -> bool:
    """Whether a call may wait for that line."""
    return too_long.begin.lstrip().startswith(b"{") and b'"method"' not in too_long.begin


def _too_long() -> str:
    return f"a line of more than {LONGEST_MESSAGE:,} bytes"


def _message(line: bytes) -> Any:
    """The message that stands on a line; None where it holds none."""
    try:
        return jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValueError:
        pass
    try:  # once more for texts that are not Unicode, and without what is nested too deep
        given = decoded(line)
        return jsonrpc_message_adapter.validate_python(_mended_answer(given) or given, by_name=False)
    except (ValueError, RecursionError):
        return None


def _mended_answer(given: Any) -> dict[str, Any] | None:
    """An answer as the protocol has it, in the place of what is nearly one: its call ends with it. None for
    what answers nothing.
    """
    if not isinstance(given, dict) or "method" in given or given.get("id") is None:
        return None
    answer = {"jsonrpc": "2.0", "id": given["id"]}
    error, result = given.get("error"), given.get("result")
    if error is None:
        return {**answer, "result": result if isinstance(result, dict) else {}}
    words = error.get("message") if isinstance(error, dict) else error
    code = error.get("code") if isinstance(error, dict) else None
    is_number = isinstance(code, int) and not isinstance(code, bool)
    return {**answer, "error": {"code": code if is_number else INTERNAL_ERROR, "message": str(words)}}
