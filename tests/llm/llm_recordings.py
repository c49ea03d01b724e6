"""Recorded answers of a real llama-server, and the reading of them that tests share."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from actors.llm.base import Answer, Assembler, Block
from actors.llm.http.answers import whole_ones
from actors.llm.http.sse import SSEParser
from actors.llm.openai.answer import ChatAnswer
from protocol.items import ThinkingPart

FOLDER = Path(__file__).parents[1] / "data" / "wire" / "llama"
WHERE = "127.0.0.1:8080"


class Recording(NamedTuple):
    """One answer: what went over the wire, and what HTTP makes of it."""

    name: str
    raw: bytes
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def streamed(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")


def recording(name: str) -> Recording:
    raw = (FOLDER / f"{name}.resp").read_bytes()
    head, _, rest = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    body = _unchunked(rest) if headers.get("transfer-encoding") == "chunked" else rest
    return Recording(name, raw, int(first.split()[1]), headers, body)


def recordings(*, status: int | None = None, streamed: bool | None = None, kind: str = "openai") -> list[str]:
    """The names of all recordings of a kind: of chat completions, of messages or of responses."""
    named = {"anthropic": "anthropic", "responses": "responses"}
    paths = [
        path
        for path in sorted(FOLDER.glob("*.resp"))
        if next((each for each, word in named.items() if word in path.stem), "openai") == kind
    ]
    found = (recording(path.stem) for path in paths)
    return [
        each.name
        for each in found
        if (status is None or (each.status == 200) == (status == 200))
        and (streamed is None or each.streamed == streamed)
    ]


def _unchunked(data: bytes) -> bytes:
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size or b"0", 16)
        if not length:
            break
        body, data = body + data[:length], data[length + 2 :]
    return body


def blocks_of(*pieces: bytes) -> list[Block]:
    """The blocks of a stream that comes in these pieces; raises what is wrong with it."""
    parser, answer = SSEParser(), ChatAnswer(WHERE)
    blocks: list[Block] = []
    for piece in pieces:
        blocks += answer.feed(parser.feed(piece))
    blocks += answer.feed(whole_ones(parser.end()))
    if answer.failure is not None:
        raise answer.failure
    return blocks + answer.close()


def answer_of(*pieces: bytes) -> Answer:
    """The whole answer of a stream that comes in these pieces."""
    return assembled(blocks_of(*pieces))


def assembled(blocks: list[Block]) -> Answer:
    assembler = Assembler()
    for block in blocks:
        assembler.feed(block)
    return assembler.answer()


def whole_answer_of(body: bytes) -> Answer:
    """The answer of one JSON object."""
    answer = ChatAnswer(WHERE)
    blocks = answer.whole(body)
    if answer.failure is not None:
        raise answer.failure
    return assembled(blocks + answer.close())


def events(*chunks: bytes | str, done: bool = True) -> bytes:
    """A stream of these chunks."""
    encoded = [chunk.encode() if isinstance(chunk, str) else chunk for chunk in chunks]
    return b"".join(b"data: %b\n\n" % chunk for chunk in [*encoded, *([b"[DONE]"] if done else [])])


def check_read(answer: Answer, said: str, thought: str, calls: list[tuple[str, str, str]]) -> None:
    """That an answer holds what its recording says by the plainest reading: text, reasoning, calls."""
    assert answer.item.text == said
    assert "".join(part.text for part in answer.item.content if isinstance(part, ThinkingPart)) == thought
    assert [(call.id, call.name) for call in answer.item.calls] == [call[:2] for call in calls]
    for call, (_, _, arguments) in zip(answer.item.calls, calls, strict=True):
        if call.invalid is None:
            assert call.arguments == json.loads(arguments)
        else:
            assert call.invalid == arguments
            assert answer.stop_reason == "max_tokens"
    assert answer.model


def check_split_at_every_byte(read: Callable[..., list[Block]], body: bytes) -> None:
    """That ``read`` makes the same blocks of a stream whose bytes come one by one, or in two pieces."""
    wanted = read(body)
    assert read(*(body[at : at + 1] for at in range(len(body)))) == wanted
    for at in range(1, len(body), max(1, len(body) // 60)):
        assert read(body[:at], body[at:]) == wanted


def split_at(body: bytes, cuts: list[float]) -> list[bytes]:
    """The bytes in pieces, cut at these parts of their length."""
    marks = sorted({0, len(body), *(int(cut * len(body)) for cut in cuts)})
    return [body[a:b] for a, b in itertools.pairwise(marks)]
