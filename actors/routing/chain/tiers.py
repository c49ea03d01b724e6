"""The tiers of a chain as they are asked: names, clients, and what keeps an answer until it is accepted."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

from actors.llm.base import Block, End, LLMClient, Request, TextChunk, UsageReport, VendorChunk
from actors.routing.chain.task import task_start, task_words, unique
from actors.routing.model_names import Names
from protocol.errors import ChainInvalid, RoutingError
from protocol.foreign import shown
from protocol.routing import ChainEntry, ChainRequest
from protocol.usage import Usage


@runtime_checkable
class Executor(Protocol):
    """Something that does a task by itself: a chain, a pool, an agent. Its result has ``text``, and may have
    ``model``, ``usage`` and ``cost``.
    """

    def run(self, request: ChainRequest) -> Awaitable[Any]:
        """Do the task. What it raises makes the tier fail."""
        ...


#: Who answers for all tiers of a kind, or for each model by its name in the chain.
Who = LLMClient | Executor | Mapping[str, LLMClient | Executor]


class Tier(Struct, frozen=True, eq=False):
    """One tier: its entry, its name in the chain, its model's name, and its client."""

    entry: ChainEntry
    name: str
    names: Names
    client: LLMClient

    @property
    def is_verified(self) -> bool:
        """Whether its answer has to be accepted first."""
        return not self.entry.is_cloud

    @property
    def price(self) -> str | None:
        """The name under which its calls have a price; None if they cost nothing."""
        return self.names.price


def tiers_of(entries: Sequence[ChainEntry], local: Who | None, cloud: Who | None) -> tuple[Tier, ...]:
    """The tiers of a chain. Raises ChainInvalid where there are none, or nobody answers for one."""
    if not entries:
        raise ChainInvalid(
            "a chain needs at least one tier", hint='as in EscalationChain(["ollama/qwen3"], …)'
        )
    for each in entries:
        _check(each)
    return tuple(
        Tier(
            entry,
            name,
            Names.of(entry.model, local=not entry.is_cloud),
            _client(entry, cloud if entry.is_cloud else local),
        )
        for entry, name in zip(entries, unique(each.model for each in entries), strict=True)
    )


def _check(entry: ChainEntry) -> None:
    if not isinstance(entry, ChainEntry):
        raise ChainInvalid(
            f"{shown(entry, 100)} is not a tier", hint="use a ChainEntry, or the name of a model"
        )
    if not entry.model.strip():
        raise ChainInvalid("a tier has an empty model name")
    if entry.timeout is not None and not entry.timeout > 0:
        raise ChainInvalid(f"{entry.model}: timeout: expected more than 0 seconds, got {entry.timeout}")


def _client(entry: ChainEntry, who: Who | None) -> LLMClient:
    kind = "cloud" if entry.is_cloud else "local"
    if isinstance(who, Mapping):
        who = who.get(entry.model)
    if who is None:
        raise ChainInvalid(
            f"{entry.model} has no client: the chain has no {kind}",
            hint=f"set {kind}= to an LLMClient, an object with run(ChainRequest), or a dict of "
            "these by model",
        )
    if isinstance(who, LLMClient):
        return who
    if isinstance(who, Executor):
        return ExecutorClient(who)
    raise ChainInvalid(
        f"{kind}={shown(who, 100)} cannot run tasks",
        hint="use an LLMClient, or an object with run(ChainRequest)",
    )


class ExecutorClient:
    """An executor as a client: it sees only the task."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def __repr__(self) -> str:
        return f"<ExecutorClient of {self._executor!r}>"

    def stream(self, request: Request) -> Done:
        """What came of the task, in one piece."""
        task = task_words(request.items, task_start(request))
        return Done(self._executor, ChainRequest(task, request.system or "", request.model))


class Done:
    """The blocks of what an executor does, and what it says that it ``cost`` (US dollars)."""

    def __init__(self, executor: Executor, request: ChainRequest) -> None:
        self._blocks = self._do(executor, request)
        self.cost: float | None = None

    def __aiter__(self) -> AsyncIterator[Block]:
        return self

    async def __anext__(self) -> Block:
        return await anext(self._blocks)

    async def aclose(self) -> None:
        """Have it end."""
        await self._blocks.aclose()  # type: ignore[attr-defined]

    async def _do(self, executor: Executor, request: ChainRequest) -> AsyncIterator[Block]:
        result = await executor.run(request)
        text = result if isinstance(result, str) else getattr(result, "text", None)
        if not isinstance(text, str):
            raise RoutingError(f"{shown(executor, 100)} returned {shown(result, 100)}, which has no text")
        self.cost = _cost_of(result)
        yield TextChunk(text)
        usage, model = getattr(result, "usage", None), getattr(result, "model", None)
        if isinstance(usage, Usage):
            yield UsageReport(usage)
        yield End("end_turn", model if model and isinstance(model, str) else request.model or None)


def _cost_of(result: Any) -> float | None:
    """The cost that a result states; None if it states no valid one."""
    cost = getattr(result, "cost", None)
    return float(cost) if isinstance(cost, int | float) and math.isfinite(cost) and cost >= 0 else None


class Recording:
    """A client that keeps the blocks of its last answer, without those of earlier attempts."""

    def __init__(self, client: LLMClient) -> None:
        self._client = client
        self.blocks: list[Block] = []
        self._stream: Any = None

    @property
    def cost(self) -> float | None:
        """What who answered says that it cost."""
        return getattr(self._stream, "cost", None)

    def stream(self, request: Request) -> AsyncIterator[Block]:
        """What the client streams."""
        self.blocks = []
        self._stream = self._client.stream(request)
        return _Kept(self._stream, self.blocks)


class _Kept:
    """A stream whose blocks are kept as they are taken."""

    def __init__(self, stream: Any, blocks: list[Block]) -> None:
        self._stream = stream
        self._blocks = blocks
        if hasattr(stream, "pour"):
            self.pour = self._pour

    def __aiter__(self) -> AsyncIterator[Block]:
        return self._iterate()

    async def __anext__(self) -> Block:
        block: Block = await anext(self._stream)
        self._blocks.append(block)
        return block

    async def _iterate(self) -> AsyncIterator[Block]:
        async for block in self._stream:
            self._blocks.append(block)
            yield block

    async def _pour(self, take: Callable[[Iterable[Block]], None]) -> None:
        def keep(blocks: Iterable[Block]) -> None:
            came = list(blocks)
            self._blocks += came
            take(came)

        await self._stream.pour(keep)

    async def aclose(self) -> None:
        if (close := getattr(self._stream, "aclose", None)) is not None:
            await close()


def without_words(blocks: Iterable[Block]) -> list[Block]:
    """The blocks of an answer whose calls are to run before anybody has accepted its text."""
    kept = list(blocks)
    texts = {block.index for block in kept if type(block) is TextChunk}
    return [
        block
        for block in kept
        if type(block) is not TextChunk
        and not (type(block) is VendorChunk and block.of == "block" and block.index in texts)
    ]
