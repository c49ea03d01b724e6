"""A cheap model server on loopback, in a process of its own: fixed answers, at three rhythms.

The first part of the path is the rhythm: ``/each/v1`` sends one chunk in each turn of its loop, ``/burst/v1``
all at once, ``/paced/v1`` one every 20 milliseconds. It prints its port and serves until its input ends.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

from bench.root import ROOT

CHUNKS = 50
#: Seconds between two chunks of a paced answer: fifty tokens a second, as models write.
PACE = 0.02
WORDS = "token "


def _chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    data = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "bench",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return _framed(b"data: " + json.dumps(data).encode() + b"\n\n")


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_USAGE = {"prompt_tokens": 10, "completion_tokens": CHUNKS, "total_tokens": 10 + CHUNKS}
_USAGE_CHUNK = _framed(
    b"data: "
    + json.dumps({"id": "chatcmpl-bench", "model": "bench", "choices": [], "usage": _USAGE}).encode()
    + b"\n\n"
)
_STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    _chunk({"role": "assistant", "content": WORDS}),
    *[_chunk({"content": WORDS})] * (CHUNKS - 1),
    _chunk({}, "stop"),
    _USAGE_CHUNK + _framed(b"data: [DONE]\n\n") + b"0\r\n\r\n",
)
_WHOLE = json.dumps(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1,
        "model": "bench",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": WORDS * CHUNKS}, "finish_reason": "stop"}
        ],
        "usage": _USAGE,
    }
).encode()
_WHOLE_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_WHOLE)
) + _WHOLE


def _event(kind: str, **fields: object) -> bytes:
    data = json.dumps({"type": kind, **fields}).encode()
    return _framed(b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n")


_MESSAGE = {
    "id": "msg_bench",
    "type": "message",
    "role": "assistant",
    "model": "bench",
    "stop_sequence": None,
}
_SPENT = {"input_tokens": 10, "output_tokens": CHUNKS}
#: The same answer in the format of Anthropic's messages.
_MESSAGES_STREAM = (
    _STREAM[0],
    _event(
        "message_start",
        message={**_MESSAGE, "content": [], "stop_reason": None, "usage": {**_SPENT, "output_tokens": 0}},
    )
    + _event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    *[_event("content_block_delta", index=0, delta={"type": "text_delta", "text": WORDS})] * CHUNKS,
    _event("content_block_stop", index=0),
    _event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=_SPENT)
    + _event("message_stop")
    + b"0\r\n\r\n",
)
_MESSAGES_WHOLE = json.dumps(
    {
        **_MESSAGE,
        "content": [{"type": "text", "text": WORDS * CHUNKS}],
        "stop_reason": "end_turn",
        "usage": _SPENT,
    }
).encode()
_MESSAGES_WHOLE_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_MESSAGES_WHOLE)
) + _MESSAGES_WHOLE


class Connection(asyncio.Protocol):
    """One connection: requests in order, each answered before the next."""

    def __init__(self) -> None:
        self._body: list[bytes] = []
        self._path = b""
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        if not self._body:
            head, _, data = data.partition(b"\r\n\r\n")
            self._path = head.split(b" ", 2)[1]
            self._missing = _length(head.lower())
        self._body.append(data)
        self._missing -= len(data)
        if self._missing <= 0:
            body = b"".join(self._body)
            self._body.clear()
            self._answer(self._path, body)

    def _answer(self, path: bytes, body: bytes) -> None:
        messages = path.endswith(b"/messages")
        stream = _MESSAGES_STREAM if messages else _STREAM
        if b'"stream":true' not in body and b'"stream": true' not in body:
            self._transport.write(_MESSAGES_WHOLE_ANSWER if messages else _WHOLE_ANSWER)
        elif path.startswith(b"/burst"):
            self._transport.write(b"".join(stream))
        else:
            self._next(iter(stream), PACE if path.startswith(b"/paced") else 0.0)

    def _next(self, pieces: Iterator[bytes], pace: float) -> None:
        piece = next(pieces, None)
        if piece is None or self._transport.is_closing():
            return
        self._transport.write(piece)
        if pace:
            self._loop.call_later(pace, self._next, pieces, pace)
        else:
            self._loop.call_soon(self._next, pieces, pace)


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


@contextmanager
def running() -> Iterator[int]:
    """The server in a process of its own; yields its port."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError("the bench's server did not start")
            yield int(line)
        finally:
            process.stdin.close()
            process.wait(10)


@cache
def port() -> int:
    """The port of a server that is started once and serves until this process ends."""
    kept = ExitStack()
    atexit.register(kept.close)
    return kept.enter_context(running())


if __name__ == "__main__":
    asyncio.run(_serve())
