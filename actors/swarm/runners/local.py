"""``LocalRunner``: agents that do one task on a model of one's own, behind any server that speaks chat
completions: Ollama, vLLM, LM Studio, llama.cpp.

It asks the model directly: no pool, no store and no pod stands between, and what it does is the same for
whoever reads an agent: pieces of text as they come, one answer, one end.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from msgspec.structs import replace

from actors.llm.base import Answer, LLMClient, Request, is_client, models_of
from actors.llm.http.presets import vendor_of
from actors.llm.prices import Prices
from actors.pod.accounts.exchange import Exchange
from actors.pod.accounts.own_exchange import Shows, own_exchange, own_meter
from actors.pod.accounts.spent import Spent, sum_of
from actors.pod.accounts.tiered import TierSpent
from actors.pod.client_factory import local_client
from actors.pod.runs.outcomes import refused, said_nothing, tokens_reached
from actors.runtime.in_thread import in_thread
from actors.swarm.runners.base import Host, Launch, Life
from actors.swarm.runners.function import AgentContext, runner_func
from protocol.config import LocalModelSection
from protocol.errors import AgentFailed, Failure, InvalidInput, ModelError
from protocol.events import AssistantMessage, RunOutcome, TextDelta, TierAttempted
from protocol.foreign import shown
from protocol.items import AssistantItem, Item, UserItem
from protocol.text import UNDECODABLE
from protocol.usage import Usage


class LocalRunner:
    """The runner of agents that are answered by one model: that of ``[local_model]``, or a client, which is
    closed by its giver.

    On a server of one's own its runs cost nothing, at a vendor's what ``prices`` say, or those that polypod
    knows, and those of a chain what its tiers cost; None where nobody knows. ``priced_as``
    (``anthropic/claude-haiku-4-5``) is by which name a client has a price that says nothing of its server. An
    agent that goes on is shown its conversation, as its log has it.
    """

    name = "local"
    one_shot = True

    def __init__(
        self,
        model: LocalModelSection | LLMClient,
        *,
        priced_as: str | None = None,
        prices: Prices | None = None,
    ) -> None:
        self._section = LocalModelSection()
        self._client: LLMClient | None = None
        self._priced_as = priced_as
        self._prices = prices
        if isinstance(model, LocalModelSection):
            self._section = model
        elif is_client(model):
            self._client = model
        else:
            raise InvalidInput(f"model: expected a client or a LocalModelSection, got {shown(model)}")

    def __repr__(self) -> str:
        return f"<LocalRunner {self._client or self._section}>"

    def start(self, launch: Launch, host: Host, /) -> Life:
        """Start an agent that asks the model."""
        launch = replace(launch, model=launch.model or self._section.model or None)
        runner = runner_func(self._work, name=self.name, joins=False, session=launch.agent_id)
        return runner.start(launch, host)

    async def _work(self, agent: AgentContext) -> None:
        words = agent.task if agent.task is not None else await agent.receive()
        before = await in_thread(read_conversation, agent.launch.log) if agent.launch.resuming else []
        if before and before[-1] == UserItem.of(words):  # it is in the log already
            del before[-1]
        items = [*before, UserItem.of(words)]
        if self._client is not None:
            await self._do(agent, self._client, items)
            return
        async with contextlib.aclosing(local_client(self._section)) as client:
            await self._do(agent, client, items)

    async def _do(self, agent: AgentContext, client: LLMClient, items: list[Item]) -> None:
        request = Request(
            items,
            model=agent.launch.model or "",
            temperature=self._section.default_temperature,
            deadline=time.monotonic() + self._section.timeout_seconds,
        )
        task = _Task(agent)
        await task.do(request, self._exchange(client, request, task))

    def _exchange(self, client: LLMClient, request: Request, task: _Task) -> Exchange:
        """What counts the request, and shows how its answer comes."""
        if models_of(client) is not None:
            return own_meter(client, request, prices=self._prices, on_tier=task.end_tier, shows=task.shows)
        model = self._priced_as or price_name(client, request.model)
        return own_exchange(client, request, model, prices=self._prices, shows=task.shows)


def price_name(client: LLMClient, model: str = "") -> str | None:
    """By what name the calls of a client have a price (``scheme/model_id``), where it is asked for ``model``,
    or its own; None where they cost nothing: its server is not a vendor's.
    """
    model, url = model or getattr(client, "model", None) or "", getattr(client, "base_url", None)
    if not isinstance(url, str):
        return model  # "offline" and "scripted" are in every table
    vendor = vendor_of(url)
    return None if vendor is None else f"{vendor}/{model}"


class _Task:
    """One task: asks for its answer, and publishes how that comes and what it took."""

    def __init__(self, agent: AgentContext) -> None:
        self._agent = agent
        self._tiers: list[TierSpent] = []
        self.shows = Shows(agent.publish, self._show)

    async def do(self, request: Request, exchange: Exchange) -> None:
        """Publish the answer and the end of the run. Raises AgentFailed, ModelError."""
        try:
            answer = await exchange.ask(request)
        except BaseException as error:
            exchange.end(error)
            if isinstance(error, asyncio.CancelledError):
                self._end("cancelled", exchange)
            elif isinstance(error, ModelError):
                self._end("failed", exchange, error=Failure.of(error))
            raise
        cost = exchange.settle_answer(answer)
        for tier in exchange.accepted:
            await self.end_tier(tier)
        await self._agent.emit(
            AssistantMessage,
            item=answer.item,
            model=answer.model,
            stop_reason=answer.stop_reason,
            usage=answer.usage,
            cost=cost,
        )
        outcome, why = _judged(answer)
        self._end(outcome, exchange, Spent(answer.usage, cost), why)
        if why is not None:
            raise AgentFailed(why.message, hint=why.hint)

    def _end(
        self,
        outcome: RunOutcome,
        exchange: Exchange,
        last: Spent | None = None,
        error: Failure | None = None,
    ) -> None:
        """End the run with what all of its calls took."""
        failed = [*exchange.failed, *(each for tier in self._tiers for each in tier.failed)]
        parts = [tier.spent for tier in self._tiers]
        parts += [Spent(each.usage, each.cost) for each in failed if each.usage is not None]
        if last is not None:
            parts.append(last)
        spent = sum_of(parts) if parts else Spent(Usage(), 0.0)  # nothing was accepted, so nothing is paid
        self._agent.end(outcome, steps=1, usage=spent.usage or Usage(), cost=spent.cost, error=error)

    async def end_tier(self, tier: TierSpent) -> None:
        """Publish what came of a tier of a chain."""
        self._tiers.append(tier)
        await self._agent.emit(
            TierAttempted, attempt=tier.attempt, usage=tier.spent.usage, cost=tier.spent.cost
        )

    def _show(self, text: str, attempt: int) -> None:
        self._agent.publish(TextDelta, text=text, attempt=attempt)


def _judged(answer: Answer) -> tuple[RunOutcome, Failure | None]:
    """How a run with this answer has ended."""
    if answer.item.refused:
        return "refused", refused(answer.item, answer.stop_reason)
    if answer.stop_reason == "max_tokens":
        return "limit_reached", tokens_reached(None)
    if not answer.item.text.strip():
        return "failed", said_nothing()
    return "finished", None


def read_conversation(log: Path) -> list[Item]:
    """What was said to an agent and what it answered, as its log has it; lines that are none are passed
    over.
    """
    items: list[Item] = []
    for path in (log.with_name(f"{log.name}.1"), log):
        try:
            with path.open("rb") as lines:
                items += (item for line in lines for item in _item_of(line))
        except OSError:
            continue
    return items


def _item_of(line: bytes) -> Iterator[Item]:
    try:
        said = msgspec.json.decode(line)
        kind, text = said["type"], "".join(block["text"] for block in said["content"])
    except (*UNDECODABLE, LookupError, TypeError):
        return
    if text and kind in _KINDS:
        yield _KINDS[kind](text)


#: How the lines of a log are called that say something, and what they are in a conversation.
_KINDS: dict[str, Callable[[str], Item]] = {
    "user_message": UserItem.of,
    "assistant_message": AssistantItem.of,
}
