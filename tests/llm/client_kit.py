"""What the contract tests of clients share: replies as servers send them, and how an answer is read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from llm_server import RawServer

from actors.llm.base import (
    Answer,
    Assembler,
    Block,
    CallChunk,
    CallEnd,
    CallStart,
    End,
    LLMClient,
    Request,
    TextChunk,
    ThinkingChunk,
)
from actors.llm.scripted import Reply
from protocol.errors import ModelError
from protocol.items import UserItem

HI = Request([UserItem.of("hi")])


def chat_events(reply: Reply) -> list[bytes]:
    """A reply as a server of OpenAI's format streams it."""
    deltas: list[dict[str, Any]] = []
    for block in reply.blocks:
        match block:
            case TextChunk():
                deltas.append({"content": block.text})
            case ThinkingChunk():
                deltas.append({"reasoning_content": block.text})
            case CallStart():
                function = {"name": block.name, "arguments": ""}
                deltas.append({"tool_calls": [{"index": block.index, "id": block.id, "function": function}]})
            case CallChunk():
                piece = {"index": block.index, "function": {"arguments": block.text}}
                deltas.append({"tool_calls": [piece]})
    stop = {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length"}[reply.stop_reason]
    usage = (
        {"prompt_tokens": reply.usage.input_tokens, "completion_tokens": reply.usage.output_tokens}
        if reply.usage
        else None
    )
    sent = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    sent.append({"choices": [{"index": 0, "delta": {}, "finish_reason": stop}], "usage": usage})
    return [b"data: %b\n\n" % json.dumps(each).encode() for each in sent] + [b"data: [DONE]\n\n"]


def messages_events(reply: Reply) -> list[bytes]:
    """A reply as a server of Anthropic's format streams it."""
    sent: list[dict[str, Any]] = [{"type": "message_start", "message": {"usage": None}}]
    begun: set[int] = set()

    def begin(index: int, **content: Any) -> None:
        if index not in begun:
            begun.add(index)
            sent.append({"type": "content_block_start", "index": index, "content_block": content})

    def add(index: int, **delta: str) -> None:
        sent.append({"type": "content_block_delta", "index": index, "delta": delta})

    for block in reply.blocks:
        match block:
            case TextChunk():
                begin(block.index, type="text", text="")
                add(block.index, type="text_delta", text=block.text)
            case ThinkingChunk():
                begin(block.index, type="thinking", thinking="")
                add(block.index, type="thinking_delta", thinking=block.text)
            case CallStart():
                begin(block.index, type="tool_use", id=block.id, name=block.name, input={})
            case CallChunk():
                add(block.index, type="input_json_delta", partial_json=block.text)
            case CallEnd():
                sent.append({"type": "content_block_stop", "index": block.index})
    usage = (
        {"input_tokens": reply.usage.input_tokens, "output_tokens": reply.usage.output_tokens}
        if reply.usage
        else None
    )
    sent.append({"type": "message_delta", "delta": {"stop_reason": reply.stop_reason}, "usage": usage})
    sent.append({"type": "message_stop"})
    return [b"event: %b\ndata: %b\n\n" % (each["type"].encode(), json.dumps(each).encode()) for each in sent]


def lines_events(reply: Reply) -> list[bytes]:
    """A reply as the server of the documentation's client streams it."""
    sent: list[dict[str, Any]] = []
    for block in reply.blocks:
        match block:
            case TextChunk():
                sent.append({"text": block.text, "at": block.index})
            case ThinkingChunk():
                sent.append({"thinking": block.text, "at": block.index})
            case CallStart():
                sent.append({"call": block.index, "id": block.id, "name": block.name})
            case CallChunk():
                sent.append({"call": block.index, "arguments": block.text})
            case CallEnd():
                sent.append({"call": block.index})
    if reply.usage is not None:
        sent.append({"input": reply.usage.input_tokens, "output": reply.usage.output_tokens})
    sent.append({"stop": reply.stop_reason})
    return [json.dumps(each).encode() + b"\n" for each in sent]


async def blocks_from(client: LLMClient, request: Request = HI) -> list[Block]:
    return [block async for block in client.stream(request)]


async def answer_from(client: LLMClient, request: Request = HI) -> Answer:
    assembler = Assembler()
    for block in await blocks_from(client, request):
        assembler.feed(block)
    return assembler.answer()


async def failure_from(client: LLMClient, request: Request = HI) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await blocks_from(client, request)
    return caught.value


def answer_of(client: Callable[[str], Any], *scripts: Any, request: Request = HI) -> tuple[Answer, RawServer]:
    """What one request of the ``client`` of a server's URL to one with these scripts gives."""

    async def main() -> tuple[Answer, RawServer]:
        async with RawServer(*scripts) as server, client(server.url) as there:
            return await answer_from(there, request), server

    return asyncio.run(main())


def failure_of(client: Callable[[str], Any], *scripts: Any) -> tuple[ModelError, RawServer]:
    """The error that one such request gives."""

    async def main() -> tuple[ModelError, RawServer]:
        async with RawServer(*scripts) as server, client(server.url) as there:
            return await failure_from(there), server

    return asyncio.run(main())


def blocks_of(answer: Answer) -> list[Any]:
    """What an answer says and calls, whoever gave it."""
    words = [(type(part), part.text) for part in answer.item.content]
    return [*words, *((call.name, call.arguments, call.invalid) for call in answer.item.calls)]


def check_contract(blocks: list[Block]) -> None:
    """Assert what the contract says of the blocks of any answer."""
    assert [type(block) for block in blocks].count(End) == 1
    assert isinstance(blocks[-1], End)
    begun: dict[int, str] = {}
    ended: set[int] = set()
    for block in blocks:
        if isinstance(block, CallStart):
            assert block.index not in begun
            assert block.id
            assert block.name
            assert block.id not in begun.values()
            begun[block.index] = block.id
        elif isinstance(block, CallChunk | CallEnd):
            assert block.index in begun
            assert block.index not in ended
            if isinstance(block, CallEnd):
                ended.add(block.index)
    msgspec.json.encode(blocks)
