"""The worker: carries out one step of a run (a request, or a batch of tool calls) and keeps nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from actors.llm.base import (
    Answer,
    Assembler,
    Block,
    CallChunk,
    CallStart,
    LLMClient,
    Request,
    TextChunk,
    ThinkingChunk,
)
from actors.llm.retry import GiveUp, decide
from protocol.errors import Failure, ModelError
from protocol.events import Retry, StreamRestart, ThinkingDelta, ToolCallDelta

#: Tells a transient event: its kind and its own fields.
Tell = Callable[..., None]
#: Tells a piece of text and in which attempt it came; apart from the rest, since a stream is made of these.
TellText = Callable[[str, int], None]


async def answer(
    client: LLMClient, request: Request, tell: Tell, tell_text: TellText, heard: Callable[[], bool]
) -> Answer:
    """The model's whole answer to ``request``, asked for again as long as ``retry.decide`` says.

    Deltas are told as they come, where anybody listens (``heard``); where an attempt breaks after some,
    StreamRestart says that they are void. Raises what the client raises, once there is no sense in
    another attempt.
    """
    attempt = 1
    while True:
        assembler = Assembler()
        try:
            stream = client.stream(request)
            try:
                async for block in stream:
                    assembler.feed(block)
                    if heard():
                        if type(block) is TextChunk:
                            tell_text(block.text, attempt)
                        else:
                            _tell_delta(tell, block, assembler, attempt)
            except BaseException:
                await _close(stream)
                raise
            return assembler.answer()
        except ModelError as error:
            if _is_being_cancelled():
                raise asyncio.CancelledError from error
            decision = decide(attempt, error, now=time.monotonic(), deadline=request.deadline)
            if isinstance(decision, GiveUp):
                raise decision.error from error.__cause__
            failure = Failure.of(error)
        if assembler.begun:
            tell(StreamRestart, attempt=attempt, error=failure)
        tell(Retry, attempt=attempt, wait=decision.seconds, error=failure)
        await asyncio.sleep(decision.seconds)
        attempt += 1


def _is_being_cancelled() -> bool:
    """Whether the request is not wanted any more, whatever its client made of its cancel."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _close(stream: AsyncIterator[Block]) -> None:
    """Give up a stream that has not come to its end."""
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()


def _tell_delta(tell: Tell, block: Block, assembler: Assembler, attempt: int) -> None:
    if isinstance(block, CallChunk | CallStart):
        start = assembler.call_at(block.index)
        text = block.text if isinstance(block, CallChunk) else ""
        tell(ToolCallDelta, call_id=start.id, name=start.name, text=text, attempt=attempt)
    elif isinstance(block, ThinkingChunk) and block.text:
        tell(ThinkingDelta, text=block.text, attempt=attempt)
