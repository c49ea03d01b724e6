"""``LineOutput``: the lines of an agent on its standard output, or in its log where nobody reads that."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from actors.runtime.future import on_own_thread
from actors.swarm.flat_lines import FlatLines, Line
from protocol.events import Event, Lagged, Retry, StreamRestart, ThinkingDelta, ToolProgress, UsageUpdate
from protocol.text import encodable

#: Lines that may wait to be written before who adds more has to wait.
_MOST_UNWRITTEN = 256
#: Bytes that are written at once: a pipe has room for as many where its reader has read all.
_AT_ONCE = 1 << 16
#: Seconds after which a reader who has taken none of the last lines is not waited for.
_PATIENCE = 2.0


class AgentLines(FlatLines):
    """The lines of a pod's events, with what a log has no use for but who watches has."""

    def of(self, event: Event) -> list[Line]:
        kind, more = _TRANSIENT.get(type(event), (None, ()))
        if kind is None:
            return super().of(event)
        said = {name: msgspec.to_builtins(getattr(event, name)) for name in more}
        return [{"type": kind, "time": event.at, **said}]


_TRANSIENT: dict[type[Event], tuple[str, tuple[str, ...]]] = {
    UsageUpdate: ("usage", ("usage", "cost")),
    ThinkingDelta: ("thinking_delta", ("text",)),
    ToolProgress: ("tool_progress", ("call_id", "name", "text")),
    StreamRestart: ("stream_restart", ("attempt", "wait", "error")),
    Retry: ("retry", ("attempt", "wait", "error")),
    Lagged: ("lagged", ("missed",)),
}


class LineOutput:
    """Writes lines in their order, in threads, so that a reader who is slow holds up nobody else, and one who
    takes nothing not even the end of the process.
    """

    def __init__(self, descriptor: int, log: Path | None) -> None:
        self._descriptor = descriptor
        self._log = log
        self._waiting: list[bytes] = []
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._takes_all = self._closing = False
        #: Bytes that somebody has read, or may yet.
        self._written = 0
        self._writing = asyncio.create_task(self._write())

    def put(self, type: str, **said: Any) -> None:  # noqa: A002 - the line's own word
        """Print a line of that type, now."""
        self._add([{"type": type, "time": time.time(), **said}])

    async def put_all(self, lines: Iterable[Line]) -> None:
        """Print lines; waits while too many are unwritten."""
        self._add(lines)
        await self._room.wait()

    def _add(self, lines: Iterable[Line]) -> None:
        self._waiting += [_encoded(line) for line in lines]
        if len(self._waiting) > _MOST_UNWRITTEN and not self._takes_all:
            self._room.clear()
        self._wake.set()

    def take_all(self) -> None:
        """Have nobody wait any more who adds lines, since these are the last."""
        self._takes_all = True
        self._room.set()

    async def close(self) -> None:
        """Have the last lines written; a reader who takes none of them for a while is not waited for."""
        self.take_all()
        self._closing = True
        self._wake.set()
        written = -1
        while written != self._written and not self._writing.done():
            written = self._written
            await asyncio.wait({self._writing}, timeout=_PATIENCE)

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                data = b"".join(self._waiting)
                self._waiting.clear()
                await on_own_thread(partial(self._put_down, data))
                self._room.set()
            if self._closing:
                return

    def _put_down(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while self._descriptor >= 0 and view:
                written = os.write(self._descriptor, view[:_AT_ONCE])
                view = view[written:]
                self._written += written
        except OSError:  # nobody reads it any more: what is left, and all after it, goes into the log
            self._descriptor = -1
        if view and self._log is not None:
            with contextlib.suppress(OSError):
                descriptor = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                with open(descriptor, "ab") as file:  # noqa: PTH123 - of a descriptor
                    file.write(view)


def _encoded(line: Line) -> bytes:
    try:
        return msgspec.json.encode(line) + b"\n"
    except UnicodeEncodeError:
        return msgspec.json.encode(_mended(line)) + b"\n"


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, dict):
        return {encodable(name): _mended(each) for name, each in value.items()}
    return [_mended(each) for each in value] if isinstance(value, list | tuple) else value
