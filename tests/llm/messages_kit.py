"""Anthropic's messages as tests write and read them."""

from __future__ import annotations

import json
from typing import Any

from llm_recordings import WHERE, assembled

from actors.llm.anthropic.answer import MessagesAnswer
from actors.llm.base import Answer, Block
from actors.llm.http.answers import whole_ones
from actors.llm.http.sse import SSEParser


def event(kind: str, **fields: Any) -> bytes:
    """One event as the vendor writes it."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps({"type": kind, **fields}).encode())


def start(**usage: Any) -> bytes:
    message = {"id": "m1", "type": "message", "role": "assistant", "content": [], "model": "claude"}
    return event("message_start", message={**message, "usage": usage or None})


def opened(index: int, kind: str, **fields: Any) -> bytes:
    return event("content_block_start", index=index, content_block={"type": kind, **fields})


def called(index: int, name: str, call_id: str = "t1", **fields: Any) -> bytes:
    return opened(index, "tool_use", id=call_id, name=name, **fields)


def text(words: str, index: int = 0) -> bytes:
    return event("content_block_delta", index=index, delta={"type": "text_delta", "text": words})


def thought(words: str, index: int = 0) -> bytes:
    return event("content_block_delta", index=index, delta={"type": "thinking_delta", "thinking": words})


def signed(signature: str, index: int = 0) -> bytes:
    delta = {"type": "signature_delta", "signature": signature}
    return event("content_block_delta", index=index, delta=delta)


def argued(piece: str, index: int = 0) -> bytes:
    delta = {"type": "input_json_delta", "partial_json": piece}
    return event("content_block_delta", index=index, delta=delta)


def closed(index: int = 0) -> bytes:
    return event("content_block_stop", index=index)


def stopped(reason: str | None = "end_turn", **usage: Any) -> bytes:
    delta = {"stop_reason": reason, "stop_sequence": None}
    return event("message_delta", delta=delta, **({"usage": usage} if usage else {}))


END = event("message_stop")
HELLO = (
    start(input_tokens=7, output_tokens=1)
    + opened(0, "text", text="")
    + text("Hel")
    + event("ping")
    + text("lo")
    + closed()
    + stopped(output_tokens=3)
    + END
)


def blocks_of(*pieces: bytes, answer_tool: str | None = None) -> list[Block]:
    """The blocks of a stream that comes in these pieces; raises what is wrong with it."""
    parser, answer = SSEParser(), MessagesAnswer(WHERE, answer_tool=answer_tool)
    blocks: list[Block] = []
    for piece in pieces:
        blocks += answer.feed(parser.feed(piece))
    blocks += answer.feed(whole_ones(parser.end()))
    if answer.failure is not None:
        raise answer.failure
    return blocks + answer.close()


def answer_of(*pieces: bytes, answer_tool: str | None = None) -> Answer:
    """The whole answer of a stream that comes in these pieces."""
    return assembled(blocks_of(*pieces, answer_tool=answer_tool))


def whole_answer_of(body: bytes | dict[str, Any], *, answer_tool: str | None = None) -> Answer:
    """The answer of one JSON object."""
    answer = MessagesAnswer(WHERE, answer_tool=answer_tool)
    blocks = answer.whole(body if isinstance(body, bytes) else json.dumps(body).encode())
    if answer.failure is not None:
        raise answer.failure
    return assembled(blocks + answer.close())
