"""Whatever a chain's models and verifiers do: what was paid is what is recorded, once, and no rejected word is shown."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from actors.llm.base import Block, Request, TextChunk, UsageReport
from actors.llm.retry import RetryPolicy
from actors.llm.scripted import call, say
from polypod import (
    AssistantMessage,
    AttemptFailed,
    ChainEntry,
    EscalationChain,
    ModelError,
    ModelVerifier,
    PodManifest,
    PodSystem,
    RunFailed,
    TextDelta,
    TierAttempted,
    Usage,
    tool,
)


@tool(concurrency="read_only", blocking=False)
def look(word: str = "x") -> str:
    """Look a word up."""
    return word


class Step(Struct, frozen=True):
    """What a model does when it is asked: ``does`` it with this many tokens."""

    does: str
    tokens: int


class Acting:
    """A model that does as it is written, and then says ``ok``; ``paid`` is what its server counted."""

    def __init__(self, name: str, steps: list[Step], paid: list[Usage]) -> None:
        self._name, self._left, self._paid = name, list(steps), paid

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        step = self._left.pop(0) if self._left else Step("ok", 3)
        usage = Usage(step.tokens, 2)
        if step.does == "fails":
            raise ModelError("it is down", kind="connection")
        if step.does == "breaks":
            self._paid.append(usage)
            yield TextChunk(f"{self._name} half ")
            yield UsageReport(usage)
            raise ModelError("it broke", kind="connection")
        self._paid.append(usage)
        reply = (
            call("look")
            if step.does == "calls" and request.tools
            else say(f"{self._name} {step.does}", chunks=2)
        )
        async for block in reply.stream():
            if type(block).__name__ == "End":
                yield UsageReport(usage)
            yield block


class Judging:
    """A judge whose verdicts are written, and cost."""

    def __init__(self, verdicts: list[bool], paid: list[Usage]) -> None:
        self._left, self._paid = list(verdicts), paid

    async def stream(self, _: Request) -> AsyncIterator[Block]:
        self._paid.append(Usage(7, 1))
        accept = self._left.pop(0) if self._left else True
        reply = say(f'{{"accept": {str(accept).lower()}, "feedback": "f"}}', input_tokens=7, output_tokens=1)
        async for block in reply.stream():
            yield block


STEPS = st.lists(
    st.builds(
        Step, st.sampled_from(["ok"] * 4 + ["calls"] * 3 + ["fails"] * 3 + ["breaks"]), st.integers(1, 50)
    ),
    max_size=4,
)
TIERS = st.lists(st.tuples(st.booleans(), STEPS), min_size=1, max_size=4)


def chain_of(
    tiers: list[tuple[bool, list[Step]]], judge: Any, paid: list[Usage], nest: bool
) -> EscalationChain:
    entries = [
        ChainEntry(f"m{n}", "subagent" if cloud else "local", cloud) for n, (cloud, _) in enumerate(tiers)
    ]
    clients = {f"m{n}": Acting(f"m{n}", steps, paid) for n, (_, steps) in enumerate(tiers)}
    chain = EscalationChain(
        entries, local=clients, cloud=clients, verifier=judge, retry=RetryPolicy(attempts=2, base=0.0)
    )
    if not nest:
        return chain
    inner = {"inner": chain, "last": Acting("last", [], paid)}
    return EscalationChain(["inner", "last"], local=inner, verifier=judge, retry=RetryPolicy(attempts=1))


def summed(usages: list[Any]) -> tuple[int, int]:
    known = [each for each in usages if each is not None]
    return sum(each.input_tokens or 0 for each in known), sum(each.output_tokens or 0 for each in known)


@pytest.mark.slow  # a stream that broke is asked for again after a while
@given(TIERS, st.lists(st.booleans(), max_size=5), st.booleans())
def test_what_was_paid_is_what_is_recorded_once(tiers, verdicts, nest):
    paid: list[Usage] = []

    async def main() -> None:
        judge = ModelVerifier(Judging(verdicts, paid), "r", model="ollama/judge")
        chain = chain_of(tiers, judge, paid, nest)
        async with PodSystem() as system:
            manifest = PodManifest.of(name="p", budget={"tokens": 1_000_000}, max_tokens=10)
            pod = await system.spawn(manifest, client=chain, tools=[look])
            with system.subscribe() as events:
                with contextlib.suppress(RunFailed):
                    await pod.run("go")
                seen = events.drain()
            described = await pod.describe()
            counted = [e for e in seen if isinstance(e, AssistantMessage | AttemptFailed | TierAttempted)]
            total = summed([described.usage])
            assert summed([e.usage for e in counted]) == total == summed(paid)
            session = described.session_id
            await pod.stop()
            again = await system.spawn(manifest, client=chain, tools=[look], resume=session)
            after = await again.describe()
            assert summed([after.usage]) == total
            shown = "".join(e.text for e in seen if isinstance(e, TextDelta))
            answers = [e.item.text for e in seen if isinstance(e, AssistantMessage)]
            rejected = {
                e.attempt.model
                for e in seen
                if isinstance(e, TierAttempted) and e.attempt.verdict == "escalate"
            }
            accepted = {
                e.attempt.model
                for e in seen
                if isinstance(e, TierAttempted) and e.attempt.verdict == "accept"
            }
            for model in rejected - accepted - {"inner"}:
                assert f"{model} ok" not in shown
                assert not [text for text in answers if text.startswith(f"{model} ok")]

    asyncio.run(main())
