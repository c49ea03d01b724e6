"""A model client around another one that notes when each request began, had its first token and ended."""

from __future__ import annotations

import time
import types
from collections.abc import AsyncIterator, Callable, Generator
from functools import partial
from typing import Any

from msgspec import Struct

from actors.llm.base import (
    Block,
    CallStart,
    End,
    LLMClient,
    Request,
    TextChunk,
    ThinkingChunk,
    UsageReport,
    models_of,
)
from protocol.errors import ModelError
from protocol.usage import Usage

_OUTPUT = (TextChunk, ThinkingChunk, CallStart)


class Asked(Struct):
    """One request, in ``time.perf_counter()`` seconds; ``first`` and ``ended`` are None where it never
    spoke or was not answered to its end.

    ``waited`` is how long the caller was suspended, ``worked`` how long the client itself was at work on the
    caller's behalf (sending, decoding; of an embedded model all of its thinking). ``error`` is the kind of
    what it failed by.
    """

    began: float
    first: float | None = None
    ended: float | None = None
    waited: float = 0.0
    worked: float = 0.0
    usage: Usage | None = None
    error: str | None = None


class TimingClient:
    """An LLMClient that has ``inner`` answer and keeps a note of each request in ``asked``.

    Its clock costs about a microsecond a block. Meant for one pod: what a pod's turn asked is what
    ``take`` gives after it.
    """

    def __init__(self, inner: LLMClient) -> None:
        self._inner = inner
        self.model = getattr(inner, "model", None) or type(inner).__name__
        if (models := models_of(inner)) is not None:
            self.prices_of = models  # whose calls who asks counts
        self.asked: list[Asked] = []

    def take(self) -> list[Asked]:
        """Take the requests that were noted since the last time."""
        asked, self.asked = self.asked, []
        return asked

    def stream(self, request: Request) -> AsyncIterator[Block]:
        """Answer ``request`` by the inner client."""
        note = Asked(time.perf_counter())
        self.asked.append(note)
        return _ClockedStream(self._inner.stream(request), note)


class _ClockedStream:
    def __init__(self, inner: AsyncIterator[Block], note: Asked) -> None:
        self._inner = inner
        self._note = note

    def __aiter__(self) -> _ClockedStream:
        return self

    async def __anext__(self) -> Block:
        note = self._note
        try:
            block: Block = await _timed(self._inner.__anext__(), note)
        except ModelError as error:
            note.error = error.kind
            raise
        except Exception as error:
            if not isinstance(error, StopAsyncIteration):
                note.error = type(error).__name__
            raise
        if note.first is None and isinstance(block, _OUTPUT):
            note.first = time.perf_counter()
        elif isinstance(block, UsageReport):
            note.usage = block.usage
        elif isinstance(block, End):
            note.ended = time.perf_counter()
        return block

    async def aclose(self) -> None:
        close = getattr(self._inner, "aclose", None)
        if close is not None:
            await close()


@types.coroutine
def _timed(awaitable: Any, note: Asked) -> Generator[Any, Any, Any]:
    """Await ``awaitable``, measuring its own steps apart from the pauses between them."""
    steps = awaitable.__await__()
    step: Callable[[], Any] = partial(next, steps)
    left = time.perf_counter()
    while True:
        try:
            wish = step()
        except StopIteration as end:
            return end.value
        finally:
            back = time.perf_counter()
            note.worked += back - left
        step = partial(next, steps)
        try:
            yield wish
        except GeneratorExit:
            steps.close()
            raise
        except BaseException as error:  # noqa: BLE001 - it is the inner one's to handle
            step = partial(steps.throw, error)
        left = time.perf_counter()
        note.waited += left - back
