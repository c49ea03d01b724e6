"""``EscalationChain``: asks cheap models first, and more expensive ones if an answer is not good enough."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from actors.llm.base import Block, Meter, Request, models_of
from actors.llm.prices import Prices
from actors.llm.retry import RetryPolicy
from actors.pod.accounts.own_exchange import own_meter
from actors.pod.accounts.spent import Spent, sum_of
from actors.pod.accounts.tiered import TierSpent
from actors.routing.chain.begin import ChainParts
from actors.routing.chain.task import ToolRule
from actors.routing.chain.tiers import ExecutorClient, Who, tiers_of
from actors.routing.chain.walk import Walk
from actors.routing.verifiers import Verifying, as_verifier, close_all
from actors.routing.warm_probe import WarmProbe
from actors.runtime.arguments import is_number, several
from actors.runtime.closing import Closing
from protocol.errors import ChainInvalid, ModelError
from protocol.foreign import shown
from protocol.items import UserItem
from protocol.routing import ChainEntry, ChainRequest, ChainResult, entry_for

_RULES = ("read_only", "all", "none")


class EscalationChain(Closing):
    """Tiers that are asked in order until one's answer is accepted. It is an ``LLMClient``, and has
    ``run(ChainRequest)``, so it can be used wherever either is wanted, even in another chain.

    ``entries`` are ChainEntry, or names of models for ``entry_for``. ``local`` and ``cloud`` answer for the
    tiers of their kind: an LLMClient, an object with ``run(ChainRequest)``, or a dict of those by the models'
    names. The answer of a local tier is held back until ``verifier`` has accepted it (a verifier, a function,
    or a list of them that all have to accept); a cloud tier's answer is shown as it arrives. What a verifier
    says about a rejected answer goes to the tiers that follow. A tier whose answer may be rejected is offered
    only tools that change nothing, unless ``tools`` is ``all`` (or ``none``). ``verify_timeout`` is how many
    seconds a verifier may take. The last tier is asked again as ``retry`` says; any other is followed by the
    next at once. ``warm_url`` is the server that knows which models are loaded, and with ``prefer_warm``
    those come first among consecutive local tiers. ``prices`` are used outside a pod; a pod has its own.
    Raises ChainInvalid for a chain that could not work, InvalidInput for entries that are not a list.
    """

    def __init__(
        self,
        entries: Iterable[ChainEntry | str],
        *,
        local: Who | None = None,
        cloud: Who | None = None,
        verifier: Verifying | None = None,
        warm_url: str | None = None,
        prefer_warm: bool = False,
        tools: ToolRule = "read_only",
        verify_timeout: float = 120.0,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen
        prices: Prices | None = None,
        name: str = "chain",
    ) -> None:
        chosen = [entry_for(each) if isinstance(each, str) else each for each in several("entries", entries)]
        tiers = tiers_of(chosen, local, cloud)
        if tools not in _RULES:
            raise ChainInvalid(f"tools={shown(tools)}: expected one of {', '.join(map(repr, _RULES))}")
        if not (is_number(verify_timeout) and verify_timeout > 0):
            raise ChainInvalid(f"verify_timeout: expected more than 0 seconds, got {shown(verify_timeout)}")
        if verifier is None and (unverified := [each.name for each in tiers if each.is_verified]):
            raise ChainInvalid(
                f"the answers of {', '.join(unverified)} cannot be verified: the chain has no verifier",
                hint="set verifier= to a function, a CommandVerifier or a ModelVerifier; cloud "
                "tiers need none",
            )
        self.model = name
        self._prices = prices
        self._parts = ChainParts(
            tiers,
            tuple(each.name for each in tiers),
            None if verifier is None else as_verifier(verifier),
            WarmProbe(warm_url) if warm_url else None,
            prefer_warm,
            tools,
            verify_timeout,
            retry,
        )

    def __repr__(self) -> str:
        return f"<EscalationChain {' > '.join(each.name for each in self._parts.tiers)}>"

    @property
    def entries(self) -> tuple[ChainEntry, ...]:
        """Its tiers, in order."""
        return tuple(each.entry for each in self._parts.tiers)

    @property
    def prices_of(self) -> tuple[str, ...]:
        """The models that it may ask and whose calls cost something (``scheme/model_id``)."""
        named: list[str] = []
        for each in self._parts.tiers:
            inner = models_of(each.client)
            named += inner if inner is not None else [] if each.price is None else [each.price]
        return (*named, *(models_of(self._parts.verifier) or ()))

    # -- as a client -----------------------------------------------------------------------------

    def stream(self, request: Request) -> AsyncIterator[Block]:
        """The accepted answer to ``request``; see LLMClient. Raises ChainExhausted, OverBudget, and
        ModelError if an answer broke off after part of it was shown, or the time was up.
        """
        alone = [each.name for each in self._parts.tiers if isinstance(each.client, ExecutorClient)]
        if alone:
            raise ModelError(
                f"the chain cannot answer a conversation: {', '.join(alone)} can only take a single task",
                kind="invalid_request",
                hint="give the chain LLMClients, or call chain.run(ChainRequest(…))",
            )
        return self._stream(request)

    def _stream(self, request: Request) -> AsyncIterator[Block]:
        meter: Meter = request.meter or own_meter(self, request, prices=self._prices)
        return Walk(self._parts, request, meter).blocks()

    # -- as who does a task ----------------------------------------------------------------------

    async def run(self, request: ChainRequest) -> ChainResult:
        """The accepted text, and the result of each tier. Raises ChainExhausted. ``request.model`` is
        ignored, since the chain chooses its own.
        """
        ended: list[TierSpent] = []
        asked = Request([UserItem.of(request.task_prompt)], request.skill_prompt or None)

        async def note(tier: TierSpent) -> None:
            ended.append(tier)

        meter = own_meter(_Whole(self), asked, prices=self._prices, on_tier=note)
        try:
            answer = await meter.ask(asked)
        except BaseException as error:
            meter.end(error)
            raise
        last = Spent(answer.usage, meter.settle_answer(answer))
        ended += meter.accepted
        failed = [*meter.failed, *(each for tier in ended for each in tier.failed)]
        spent = sum_of(
            (*(each.spent for each in ended), last, *(Spent(each.usage, each.cost) for each in failed))
        )
        attempts = tuple(each.attempt for each in ended)
        return ChainResult(answer.item.text, answer.model or "", spent.usage, spent.cost, attempts)

    async def aclose(self) -> None:
        """Close what the chain made or verifies with; ``local`` and ``cloud`` stay open."""
        await close_all(filter(None, (self._parts.verifier, self._parts.probe)))


class _Whole:
    """A chain as ``run`` asks it, whoever stands in it."""

    def __init__(self, chain: EscalationChain) -> None:
        self._chain = chain

    def stream(self, request: Request) -> AsyncIterator[Block]:
        """What the chain answers."""
        return self._chain._stream(request)  # noqa: SLF001 - its other half
