"""The worker: carries out one step of a run (a request, or a batch of tool calls) and keeps nothing."""

from __future__ import annotations

from collections.abc import Callable

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
from protocol.errors import ModelError
from protocol.events import (
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
)

#: Tells a transient event: its kind and its own fields.
Tell = Callable[..., None]


async def answer(client: LLMClient, request: Request, tell: Tell, heard: Callable[[], bool]) -> Answer:
    """The model's whole answer to ``request``.

    Deltas are told as they come, where anybody listens (``heard``). Raises what the client raises once
    retrying has no more sense.
    """
    attempt = 1
    while True:
        stream = client.stream(request)
        assembler = Assembler()
        try:
            async for block in stream:
                assembler.feed(block)
                if heard():
                    _tell_delta(tell, block, assembler, attempt)
            if not assembler.ended:
                raise ModelError("the model's stream ended without an end", kind="protocol")
            return assembler.answer()
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()


def _tell_delta(tell: Tell, block: Block, assembler: Assembler, attempt: int) -> None:
    kind = type(block)
    if kind is TextChunk:
        tell(TextDelta, text=block.text, attempt=attempt)  # type: ignore[union-attr]
    elif isinstance(block, CallChunk | CallStart):
        start = assembler.call_at(block.index)
        text = block.text if isinstance(block, CallChunk) else ""
        tell(ToolCallDelta, call_id=start.id, name=start.name, text=text, attempt=attempt)
    elif isinstance(block, ThinkingChunk) and block.text:
        tell(ThinkingDelta, text=block.text, attempt=attempt)
