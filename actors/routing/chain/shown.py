"""``ShownAnswer``: passes on a tier's answer as it arrives, each step of it within a time limit."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any

from msgspec.structs import replace

from actors.llm.base import Assembler, Block, End, Request, TierEnded, TierStarted, UsageReport
from actors.llm.retry import CLOSE_GRACE
from actors.pod.accounts.exchange import Exchange
from actors.routing.chain.tiers import Tier


class ShownAnswer:
    """One answer of a tier that is shown as it arrives."""

    def __init__(self, tier: Tier, request: Request) -> None:
        self._tier = tier
        self.request = request
        self.assembler = Assembler()
        self._stream: Any = None
        #: Whether anything of it was given on; its blocks that come last.
        self.began = False
        self.last: list[Block] = []

    @property
    def cost(self) -> float | None:
        """What who answered says that it cost."""
        return getattr(self._stream, "cost", None)

    @property
    def is_final(self) -> bool:
        """Whether the complete answer ends its task: it has no calls, and its model has not paused."""
        answer = self.assembler.answer()
        return not answer.item.calls and answer.stop_reason != "pause"

    async def blocks(self, exchange: Exchange) -> AsyncGenerator[Block, None]:
        """Its blocks, but for its usage and its end."""
        self._stream = self._tier.client.stream(self.request)
        try:
            async for block in _within(self._stream, self.request.deadline):
                self.assembler.feed(block)
                kind = type(block)
                if kind is TierEnded:
                    await exchange.end_tier(block)  # type: ignore[arg-type]
                elif kind is UsageReport:
                    self.last = [block]
                elif kind is End:
                    self.last.append(named(block, self._tier))  # type: ignore[arg-type]
                else:
                    if not self.began:
                        self.began = True
                        yield TierStarted(self._tier.name)
                    yield within_tier(block, self._tier)
        except BaseException:
            await close_stream(self._stream)
            raise
        if not self.assembler.ended:
            self.assembler.answer()  # which raises


def _within(stream: AsyncIterator[Block], deadline: float | None) -> AsyncIterator[Block]:
    """The blocks of a stream, each of which has to come before the deadline."""
    return stream if deadline is None else _each_within(aiter(stream), deadline)


async def _each_within(blocks: AsyncIterator[Block], deadline: float) -> AsyncIterator[Block]:
    """The blocks of a stream, each of which has to come before the deadline. Raises TimeoutError."""
    while True:
        try:
            async with bound(deadline):
                block = await anext(blocks)
        except StopAsyncIteration:
            return
        yield block


def bound(deadline: float | None) -> AbstractAsyncContextManager[Any]:
    """What ends a step at a deadline (``time.monotonic()``)."""
    return _UNBOUNDED if deadline is None else asyncio.timeout(max(0.0, deadline - time.monotonic()))


#: A step that nothing ends: asyncio's own costs 5 us.
_UNBOUNDED: AbstractAsyncContextManager[Any] = contextlib.nullcontext()


async def close_stream(stream: Any) -> None:
    """Close a stream; an error in that says nothing about its answer."""
    if (close := getattr(stream, "aclose", None)) is not None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_GRACE):
                await close()


def within_tier(block: Block, tier: Tier) -> Block:
    """A block as the chain passes it on: the tier of a chain within it is named behind its own."""
    return TierStarted(f"{tier.name} > {block.model}") if type(block) is TierStarted else block


def named(end: End, tier: Tier) -> End:
    """The end of an answer, which says whose it is."""
    return end if end.model is not None else replace(end, model=tier.names.asked)


def with_end(blocks: Iterable[Block], tier: Tier) -> list[Block]:
    """The blocks of a whole answer, its end last."""
    kept = [within_tier(block, tier) for block in blocks if type(block) not in {TierEnded, End}]
    end = next(block for block in blocks if type(block) is End)
    return [*kept, named(end, tier)]
