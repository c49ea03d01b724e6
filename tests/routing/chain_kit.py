"""What the tests of chains share: verifiers that say what a test wants, and pods on a chain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from actors.llm.base import Block, End, Request, TextChunk, UsageReport
from actors.llm.scripted import Reply, ScriptedClient
from actors.routing.chain.chain import EscalationChain
from protocol.routing import Verdict
from protocol.usage import Usage

#: A local model and one in a cloud whose price polypod knows.
SMALL, LARGE = "ollama/phi4", "claude-opus-5"


class Verdicts:
    """A verifier that gives these verdicts in turn, and keeps what it was asked."""

    def __init__(self, *verdicts: Verdict | BaseException | bool | str) -> None:
        self._left = list(verdicts)
        self.asked: list[tuple[str, str, str]] = []

    async def verify(self, skill_prompt: str, task_prompt: str, output: str) -> Any:
        self.asked.append((skill_prompt, task_prompt, output))
        said = self._left.pop(0)
        if isinstance(said, BaseException):
            raise said
        return Verdict(accept=False, feedback=said) if isinstance(said, str) else said


def chain_of(
    local: Sequence[Any],
    cloud: Sequence[Any] = (),
    *verdicts: Any,
    entries: Any = (SMALL, LARGE),
    **more: Any,
) -> EscalationChain:
    """A chain whose models answer so."""
    more.setdefault("verifier", Verdicts(*verdicts))
    return EscalationChain(entries, local=ScriptedClient(local), cloud=ScriptedClient(cloud), **more)


class Hanging:
    """A model that says ``words`` and then nothing more until it is cancelled."""

    model = "hanging"

    def __init__(self, *words: str, usage: Usage | None = None) -> None:
        self._words = words
        self._usage = usage
        self.asked = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        for each in self._words:
            yield TextChunk(each)
        if self._usage is not None:
            yield UsageReport(self._usage)
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        yield End("end_turn")


class Breaking:
    """A model that says ``words`` and breaks with ``error``, ``times`` times; then it answers like a script."""

    model = "breaking"

    def __init__(self, words: str, error: BaseException, times: int, *replies: Reply) -> None:
        self._words, self._error, self.left = words, error, times
        self._script = ScriptedClient(replies)
        self.asked = 0

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        self.asked += 1
        if self.left:
            self.left -= 1
            yield TextChunk(self._words)
            raise self._error
        async for block in self._script.stream(request):
            yield block


class HangingVerifier:
    """A verifier that never says anything."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def verify(self, *_: str) -> Verdict:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        raise AssertionError


class Doing:
    """Who does a task by itself."""

    def __init__(self, does: Callable[[Any], Any]) -> None:
        self._does = does
        self.asked: list[Any] = []

    async def run(self, request: Any) -> Any:
        self.asked.append(request)
        done = self._does(request)
        if isinstance(done, BaseException):
            raise done
        return done
