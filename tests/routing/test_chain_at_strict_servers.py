"""Whatever becomes of a pod's runs on chains of tiers that speak two formats, every request is one that strict
servers take, and what one server's model gave of its reasoning comes back to it alone.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import cycle
from typing import Any, Literal

from effort import times
from hypothesis import example, given, settings
from hypothesis import strategies as st
from llm.test_pods_at_strict_servers import (
    BOTH,
    HANG,
    LOOK,
    SAY,
    WAIT,
    WORDS,
    Anthropic,
    Life,
    OpenAI,
    StrictModel,
    lives,
)
from llm_server import RawServer

from actors import PodManifest, PodSystem
from actors.llm.anthropic.client import AnthropicClient
from actors.llm.openai.client import OpenAIClient
from polypod import ChainEntry, EscalationChain, Verdict

Actions = list[tuple[str, list[int]]]


class Messages(Anthropic):
    """A server of Anthropic's format: words beside calls, which nobody has verified, do not come back to it."""

    def given(self) -> list[list[dict[str, Any]]]:
        given = super().given()
        return [*given, *([block for block in blocks if block != SAY] for blocks in given)]


class Models:
    """The models of all tiers as one: what it does next, and whether it is silent."""

    def __init__(self, *models: StrictModel) -> None:
        self._models = models
        self.hanging = asyncio.Event()
        for each in models:
            each.hanging = self.hanging

    @property
    def plan(self) -> deque[int]:
        """What is done next, whichever tier is asked."""
        return self._models[0].plan

    @plan.setter
    def plan(self, plan: deque[int]) -> None:
        for each in self._models:
            each.plan = plan


class ChainLife(Life):
    """One session, whose pods come and go, on one chain after the other."""

    def __init__(self, chains: dict[str, EscalationChain], models: Any) -> None:
        super().__init__([])
        self._chains = chains
        self._names = deque(chains)
        self.model = models

    async def lead(self, actions: Actions) -> None:
        """Do all that, where "move" goes on at the next chain."""
        rest = deque(actions)
        while rest or self._session is None:
            manifest = PodManifest.of(name="p", model=f"chain/{self._names[0]}", max_steps=8)
            self._names.rotate()
            async with PodSystem(store=self._store, chains=self._chains) as system:
                self.pod = await system.spawn(manifest, tools=self._tools(), resume=self._session)
                while rest and rest[0][0] != "move":
                    await self._act(*rest.popleft())
                await self._act("run", [])
                self._session = (await self.pod.describe()).session_id
            if rest:
                rest.popleft()


def chains_of(openai: Any, anthropic: Any, verify: Callable[..., Verdict], tools: Any) -> Any:
    """Chains from either server to the other, and one with another in it."""
    up = EscalationChain(
        ["m", ChainEntry("claude-m", "subagent", is_cloud=True)],
        local=openai,
        cloud=anthropic,
        verifier=verify,
        tools=tools,
    )
    down = EscalationChain(
        ["n", ChainEntry("o", "subagent", is_cloud=True)],
        local=anthropic,
        cloud=openai,
        verifier=verify,
        tools=tools,
    )
    outer = EscalationChain(["x", "y"], local={"x": up, "y": openai}, verifier=verify, tools=tools)
    return {"up": up, "down": down, "outer": outer}


async def refused_in(actions: Actions, verdicts: list[bool], tools: Literal["all", "read_only"]) -> list[str]:
    """What the servers refuse of such a life."""
    refused: list[str] = []
    one, other = StrictModel(OpenAI(), refused), StrictModel(Messages(), refused)
    models, said = Models(one, other), cycle(verdicts)

    async def verify(*_: str) -> Verdict:
        return Verdict(next(said), "do better")

    async with RawServer(one) as first, RawServer(other) as second:
        openai, anthropic = OpenAIClient(first.url, "m"), AnthropicClient(second.url, "m")
        try:
            life = ChainLife(chains_of(openai, anthropic, verify, tools), models)
            await asyncio.wait_for(life.lead(actions), 60)
        finally:
            await openai.aclose()
            await anthropic.aclose()
        assert first.received or second.received
    return refused


@settings(max_examples=times(10))
@given(
    actions=lives,
    verdicts=st.lists(st.booleans(), min_size=1, max_size=4),
    tools=st.sampled_from(["all", "read_only"]),
)
@example(
    [("run", [BOTH, WORDS]), ("move", []), ("run", [WORDS, WAIT]), ("steer", [WAIT, BOTH])], [False], "all"
)
@example(
    [("pause", [WAIT]), ("move", []), ("resume", [BOTH]), ("compact", []), ("cancel", [HANG])], [True], "all"
)
@example([("pause", [HANG]), ("move", []), ("run", [LOOK, WORDS]), ("push", [])], [False, True], "read_only")
def test_no_request_of_a_chain_is_refused(
    actions: Actions, verdicts: list[bool], tools: Literal["all", "read_only"]
):
    assert asyncio.run(refused_in(actions, verdicts, tools)) == []
