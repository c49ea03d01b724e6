"""Claim: the cost of reading a stream: bytes to server-sent events, and to blocks of an answer."""

from __future__ import annotations

import json
from collections.abc import Iterator

from actors.llm.http.sse import SSEParser
from actors.llm.openai.answer import ChatAnswer
from bench.claim import Claim, at_most
from bench.measure import Stopwatch
from bench.results import Reading

CLAIM = Claim("sse", "SSE: from the bytes of a stream to events and blocks")

_CHUNK = (
    b"data: "
    + json.dumps(
        {
            "id": "chatcmpl-bench",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "bench",
            "choices": [{"index": 0, "delta": {"content": "token "}, "finish_reason": None}],
        }
    ).encode()
    + b"\n\n"
)
_MANY = 65_536 // len(_CHUNK)


def _pieces(count: int, size: int) -> Iterator[bytes]:
    """``count`` events in pieces of ``size`` bytes."""
    data = _CHUNK * count
    return (data[at : at + size] for at in range(0, len(data), size))


def _parsed(count: int, size: int) -> list[Reading]:
    pieces = list(_pieces(count, size))
    parser, seen = SSEParser(), 0
    with Stopwatch() as watch:
        for piece in pieces:
            seen += len(parser.feed(piece))
    assert seen == count
    return [watch.each("time of an event", count)]


@CLAIM.case("events, one to a piece", full=100_000, quick=20_000)
def one_to_a_piece(count: int) -> list[Reading]:
    """One event in a piece, as a model sends them."""
    return _parsed(count, len(_CHUNK))


@CLAIM.case("events, 64 KB to a piece", full=100_000, quick=20_000)
def many_to_a_piece(count: int) -> list[Reading]:
    """Many events in a piece, as they arrive when we are late."""
    return _parsed(count, 65_536)


@CLAIM.case("events, 7 bytes to a piece", full=10_000, quick=2_000)
def bytes_of_an_event(count: int) -> list[Reading]:
    """Pieces of a few bytes, as a hostile network sends them."""
    return _parsed(count, 7)


@CLAIM.case(
    "blocks, one event to a piece", full=50_000, quick=10_000, targets={"time of an event": at_most(4e-6)}
)
def blocks(count: int) -> list[Reading]:
    """Events decoded and typed, as blocks of an answer."""
    pieces = list(_pieces(count, len(_CHUNK)))
    parser, answer, seen = SSEParser(), ChatAnswer("bench"), 0
    with Stopwatch() as watch:
        for piece in pieces:
            seen += len(answer.feed(parser.feed(piece)))
    assert seen == count
    return [watch.each("time of an event", count)]


@CLAIM.case("events, 64 KB to a piece", by="bytes.split", kind="floor", full=200_000, quick=50_000)
def split(count: int) -> list[Reading]:
    """The pieces split at blank lines, without looking at them."""
    pieces = list(_pieces(count, 65_536))
    with Stopwatch() as watch:
        for piece in pieces:
            piece.split(b"\n\n")
    return [watch.each("time of an event", count)]


@CLAIM.case("events, one to a piece", by="bytes.split", kind="floor", full=200_000, quick=50_000)
def split_each(count: int) -> list[Reading]:
    """One event at a time, split at blank lines."""
    with Stopwatch() as watch:
        for _ in range(count):
            _CHUNK.split(b"\n\n")
    return [watch.each("time of an event", count)]
