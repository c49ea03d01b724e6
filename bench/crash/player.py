"""The model and the tools of a pod under test: random, with latency, each call with an id of its own."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Iterator, Mapping

from actors.llm.base import Block, CallChunk, CallEnd, CallStart, End, Request, TextChunk
from actors.tools.base import Tool, ToolContext, tool
from bench.crash.reports import Phase, Teller
from protocol.items import AssistantItem, UserItem
from protocol.wire import encode

_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_SUMMARY = {"text": "## Current Work\nThe numbers are read out.\n## User Directives\nGo on."}
_FOUND = {"requests": [{"intent": "read numbers", "summary": "The user wants numbers."}]}
#: The most answers with calls before a run's last answer.
_MOST_TURNS = 3


class Player:
    """Plays the model of one pod, and of its summariser and its memory job. ``pace`` is the longest pause
    between two blocks, in seconds. ``mark`` begins the ids of all calls, so that no other player uses them.
    """

    model = "player"

    def __init__(self, pod: str, mark: str, chance: random.Random, teller: Teller, pace: float) -> None:
        self._pod = pod
        self._mark = mark
        self._chance = chance
        self._teller = teller
        self._pace = pace
        self._calls = 0

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        """Answer, block by block."""
        names = {spec.name for spec in request.tools}
        with self._teller.doing(_phase(names), self._pod):
            for block in self._answer(request, names):
                await asyncio.sleep(self._chance.uniform(0, self._pace))
                yield block

    def _answer(self, request: Request, names: set[str]) -> Iterator[Block]:
        if "write_summary" in names:
            return self._worker(request, "write_summary", _SUMMARY)
        if "write_extracted" in names:
            return self._worker(request, "write_extracted", _FOUND)
        if names and _turns(request) < _MOST_TURNS and self._chance.random() < 0.6:
            return self._batch(sorted(names))
        return self._words()

    def _worker(self, request: Request, name: str, arguments: Mapping[str, object]) -> Iterator[Block]:
        """One call, then an end."""
        if len(request.items) > 1:
            yield TextChunk("done")
            yield End("end_turn")
            return
        yield CallStart(0, f"{self._mark}-worker", name)
        yield CallChunk(0, encode(arguments).decode())
        yield CallEnd(0)
        yield End("tool_use")

    def _batch(self, names: list[str]) -> Iterator[Block]:
        yield TextChunk("I look. ")
        for index in range(1, self._chance.randint(1, 4) + 1):
            self._calls += 1
            yield CallStart(index, f"{self._mark}-{self._calls}", self._chance.choice(names))
            yield CallChunk(index, encode({"word": self._chance.choice(_WORDS)}).decode())
            yield CallEnd(index)
        yield End("tool_use")

    def _words(self) -> Iterator[Block]:
        for _ in range(self._chance.randint(1, 5)):
            yield TextChunk(" ".join(self._chance.choices(_WORDS, k=self._chance.randint(5, 60))))
        yield End("end_turn")


def _phase(names: set[str]) -> Phase:
    if "write_summary" in names:
        return "compaction"
    return "memory" if "write_extracted" in names else "stream"


def _turns(request: Request) -> int:
    """Answers since the user spoke last."""
    count = 0
    for item in reversed(request.items):
        if isinstance(item, UserItem):
            break
        count += isinstance(item, AssistantItem)
    return count


class Toolkit:
    """Three tools of all kinds; each appends its call's id to a file before anything else."""

    def __init__(self, descriptor: int, chance: random.Random, teller: Teller, pace: float) -> None:
        self._descriptor = descriptor
        self._chance = chance
        self._teller = teller
        self._pace = pace

    def tools(self) -> list[Tool]:
        """Two that may run together, one of them in a thread, and one that runs alone."""
        return [
            tool(concurrency="read_only", name="look")(self._look),
            tool(concurrency="read_only", name="weigh")(self._weigh),
            tool(concurrency="exclusive", name="change")(self._change),
        ]

    async def _look(self, word: str, ctx: ToolContext) -> str:
        return await self._done(word, ctx)

    async def _change(self, word: str, ctx: ToolContext) -> str:
        return await self._done(word, ctx)

    def _weigh(self, word: str, ctx: ToolContext) -> str:
        with self._teller.doing("tool", ctx.pod):
            os.write(self._descriptor, ctx.call_id.encode() + b"\n")
            time.sleep(self._chance.uniform(0, self._pace))
            return f"{word} weighs {len(word)}"

    async def _done(self, word: str, ctx: ToolContext) -> str:
        with self._teller.doing("tool", ctx.pod):
            os.write(self._descriptor, ctx.call_id.encode() + b"\n")
            await asyncio.sleep(self._chance.uniform(0, self._pace))
            return f"{word} has {len(word)} letters"
