"""What a chunk of a stream costs in calls of our own: models send hundreds of them, each for itself."""

import asyncio
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from client_kit import HI, chat_events, messages_events
from llm_server import STREAM_END, STREAM_HEAD, Exchange, RawServer, chunk

import actors.llm
from actors.llm.anthropic.client import AnthropicClient
from actors.llm.asking import answer_of
from actors.llm.base import TextChunk
from actors.llm.openai.client import OpenAIClient
from actors.llm.scripted import Reply

OURS = actors.llm.__path__[0]


async def calls_for(make: Callable[..., Any], events: Callable[[Reply], list[bytes]], chunks: int) -> int:
    """The calls of functions of ours while an answer comes in so many chunks, each read for itself."""
    pieces = events(Reply([TextChunk("word ")] * chunks))

    async def serve(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD)
        for piece in pieces:
            await exchange.send(chunk(piece))
            for _ in range(3):  # turns of the loop, in which the client reads it
                await asyncio.sleep(0)
        await exchange.send(STREAM_END)

    calls = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code.co_filename.startswith(OURS)

    async with RawServer(serve) as server:
        client = make(server.url, "m")
        before = sys.getprofile()
        sys.setprofile(count)
        try:
            answer = await answer_of(client, HI)
        finally:
            sys.setprofile(before)
        await client.aclose()
    assert answer.item.text == "word " * chunks
    return calls


@pytest.mark.parametrize(
    ("make", "events", "most"), [(OpenAIClient, chat_events, 13.1), (AnthropicClient, messages_events, 15.1)]
)
async def test_a_chunk_that_comes_alone_takes_few_calls_of_our_own(make, events, most):
    few, many = await calls_for(make, events, 50), await calls_for(make, events, 150)
    assert (many - few) / 100 <= most
