"""Models for the bench: clients that cost next to nothing, so that the runtime is what is measured."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from actors.llm.base import Block, CallChunk, CallEnd, CallStart, End, Request, TextChunk, UsageReport
from protocol.items import ToolResult
from protocol.manifest import PodManifest
from protocol.usage import Usage

ANSWER: tuple[Block, ...] = (TextChunk("The answer is 42."), UsageReport(Usage(10, 5)), End("end_turn"))


def manifest(name: str = "bench", **settings: object) -> PodManifest:
    """A pod's manifest for a run with any number of steps."""
    return PodManifest.of(name=name, **settings)  # type: ignore[arg-type]


class Parrot:
    """Answers every request with the same blocks."""

    model = "parrot"

    def __init__(self, blocks: Sequence[Block] = ANSWER) -> None:
        self._blocks = tuple(blocks)

    async def stream(self, request: Request) -> AsyncIterator[Block]:  # noqa: ARG002
        """Answer."""
        for block in self._blocks:
            yield block


class Caller:
    """Calls a tool if the last item is not a result, and answers in words if it is."""

    model = "caller"

    def __init__(self, tool: str, arguments: str, calls: int = 1) -> None:
        self._tool = tool
        self._arguments = arguments
        self._calls = calls
        self._number = 0

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        """Call or answer."""
        if isinstance(request.items[-1], ToolResult):
            for block in ANSWER:
                yield block
            return
        for index in range(self._calls):
            self._number += 1
            yield CallStart(index, f"call-{self._number}", self._tool)
            yield CallChunk(index, self._arguments)
            yield CallEnd(index)
        yield UsageReport(Usage(10, 5))
        yield End("tool_use")
