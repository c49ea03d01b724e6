"""``TieredExchange``: one request to a client that asks several models, each call at its own price."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple, Protocol

from msgspec import Struct
from msgspec.structs import replace

from actors.compaction.policy import Limits
from actors.llm.base import Answer, LLMClient, Request, TierEnded, models_of
from actors.llm.retry import RetryPolicy
from actors.pod.accounts.budget import Budget, OverBudget, Totals
from actors.pod.accounts.exchange import (
    Asked,
    Exchange,
    FailedAttempt,
    Payer,
    Publish,
    PublishText,
    request_tokens,
)
from actors.pod.accounts.spent import NOTHING, Spent, sum_of
from protocol.events import Retry
from protocol.routing import AttemptRecord
from protocol.usage import Usage

#: What a model's calls cost, by its name (``scheme/model_id``).
PriceOf = Callable[[str, Usage | None], float | None]
_NO_LIMITS = Limits(None, None, 0)


class TierSpent(NamedTuple):
    """The result of a tier: what it used up that is not counted yet, and the attempts that gave no answer."""

    attempt: AttemptRecord
    spent: Spent
    failed: list[FailedAttempt]


class AskedTiers(Asked, Protocol):
    """A client that asks several models, and what their answers cost."""

    @property
    def price_of(self) -> PriceOf: ...


class TierPayer(Payer, Protocol):
    """The budget that pays for a request, and what each model costs."""

    @property
    def template(self) -> AskedTiers: ...


class _Model(Struct, frozen=True, eq=False):
    client: LLMClient
    price: Callable[[Usage | None], float | None]
    totals: Totals
    limits: Limits = _NO_LIMITS
    retry: RetryPolicy = RetryPolicy()


class _Paid(Struct, frozen=True, eq=False):
    budget: Budget | None
    template: _Model


def priced(payer: TierPayer, client: LLMClient, model: str | None) -> Payer:
    """Who pays for the calls of ``client``, at the price of ``model``; None costs nothing."""
    template = payer.template
    price = _free if model is None else partial(template.price_of, model)
    return _Paid(payer.budget, _Model(client, price, template.totals))


def _free(_: Usage | None) -> float:
    return 0.0


class _Call(Exchange):
    """A call of one of the models, which reports what its answer took."""

    __slots__ = ("_report", "known_cost")

    def __init__(
        self,
        payer: Payer,
        prompt_tokens: Callable[[], int],
        max_tokens: int | None,
        publish: Publish,
        report: Callable[[Spent], object],
    ) -> None:
        super().__init__(payer, prompt_tokens, max_tokens, publish=publish)
        self._report = report
        #: What who answered says that it cost, in US dollars.
        self.known_cost: float | None = None

    def settle_answer(self, answer: Answer) -> float | None:
        cost = super().settle_answer(answer)
        cost = cost if self.known_cost is None else self.known_cost
        self._report(Spent(answer.usage, cost))
        return cost


class _OfChain(Exchange):
    """A call of a chain within the chain: its own calls are counted where they are made."""

    __slots__ = ("_whole",)

    def __init__(self, whole: TieredExchange, payer: Payer) -> None:
        super().__init__(payer, int, None)
        self._whole = whole

    def reserve(self) -> None:
        """Each of its calls asks by itself."""

    async def end_tier(self, ended: TierEnded) -> None:
        await self._whole.end_tier(ended)

    def settle_answer(self, answer: Answer) -> float | None:  # noqa: ARG002
        self._assembler = None
        return self._whole.answered.cost

    def _fail(self, error: BaseException) -> FailedAttempt:
        self._assembler = None
        return FailedAttempt(self._attempt, error, None, None, None)


class TieredExchange(Exchange):
    """Serves as the ``meter`` of the request: the client asks here for each of its calls.

    ``on_tier`` gets the result of each tier that was not accepted, once, before the next is asked. What the
    accepted tier used up besides its answer is in ``accepted``, to be counted with the answer.
    """

    __slots__ = ("_besides", "_calls", "_on_tier", "accepted", "answered")

    _resources: TierPayer

    def __init__(
        self,
        resources: TierPayer,
        prompt_tokens: Callable[[], int],
        max_tokens: int | None,
        *rest: Callable[[], bool] | Publish | PublishText,
        on_tier: Callable[[TierSpent], Awaitable[None]],
    ) -> None:
        super().__init__(resources, prompt_tokens, max_tokens, *rest)  # type: ignore[arg-type]
        self._on_tier = on_tier
        #: The calls whose failed attempts are not counted; the last may be under way.
        self._calls: list[Exchange] = []
        #: What the last answer of a tier took, and what verifiers did, as far as neither is counted.
        self.answered = NOTHING
        self._besides: list[Spent] = []
        self.accepted: list[TierSpent] = []

    def ask(self, request: Request) -> Coroutine[Any, Any, Answer]:
        """The client's whole answer. Raises OverBudget, or what the client raises."""
        return super().ask(replace(request, meter=self))

    # -- the client's own calls ------------------------------------------------------------------

    def check(self) -> None:
        """Raise OverBudget if nothing more may be asked."""
        budget = self._resources.budget
        if budget is not None and (exceeded := budget.exceeded()) is not None:
            raise OverBudget(exceeded)

    def exchange(
        self, client: LLMClient, model: str | None, request: Request, *, answers: bool = True
    ) -> Exchange:
        """What counts one call, as of ``Meter``."""
        payer = priced(self._resources, client, model)
        call: Exchange
        if models_of(client) is not None:
            call = _OfChain(self, payer)
        else:
            report = self._take_answered if answers else self._besides.append
            size = self._prompt_tokens if answers else partial(request_tokens, request)
            call = _Call(payer, size, request.max_tokens, self._publish_retry, report)
        self._calls.append(call)
        return call

    def _publish_retry(self, _: object, **fields: Any) -> None:
        self._publish(Retry, **fields)  # nothing was shown yet of what is asked for again

    def _take_answered(self, spent: Spent) -> None:
        if self.answered is not NOTHING:  # a tier that took more than one answer
            self._besides.append(self.answered)
        self.answered = spent

    async def end_tier(self, ended: TierEnded) -> None:
        """Count what a tier used up, now that it has ended."""
        earlier, self.accepted = self.accepted, []
        for each in earlier:  # of a chain within the chain, whose answer is an attempt of this one
            await self._on_tier(each)
        if ended.attempt.verdict != "accept" and self._assembler is not None and self._assembler.begun:
            # It broke in the middle of what was shown, which has what it took.
            await self._on_tier(TierSpent(ended.attempt, NOTHING, []))
            return
        spent = NOTHING
        if self._besides:
            spent, self._besides = sum_of(self._besides), []
        failed = self._take_failed()
        if ended.attempt.verdict == "accept":
            self.accepted.append(TierSpent(ended.attempt, spent, failed))
            return
        answered, self.answered = self.answered, NOTHING
        spent = answered if spent is NOTHING else sum_of((answered, spent))
        await self._on_tier(TierSpent(ended.attempt, spent, failed))

    def _take_failed(self) -> list[FailedAttempt]:
        taken = [failed for call in self._calls for failed in call.failed if failed.usage is not None]
        self._calls = []
        return taken

    # -- the request as a whole ------------------------------------------------------------------

    def reserve(self) -> None:
        """Nothing is held back for the whole: each call asks by itself."""

    def progress(self) -> tuple[object, int, int] | None:
        """How far the call under way is; None between calls, and while an answer is verified without any."""
        return self._calls[-1].progress() if self._calls else None

    def settle_answer(self, answer: Answer) -> float | None:  # noqa: ARG002 - it is settled
        """What the answer cost, in US dollars: that of the tier that gave it."""
        self._assembler = None
        cost, self.answered = self.answered.cost, NOTHING
        self.failed += self._take_failed()
        return cost

    def _fail(self, error: BaseException) -> FailedAttempt:
        assembler, self._assembler = self._assembler, None
        assert assembler is not None
        for call in self._calls:
            call.end(error)
        failures = [*self._take_failed(), *(each for tier in self.accepted for each in tier.failed)]
        parts = [Spent(each.usage, each.cost) for each in failures]
        parts += [self.answered, *self._besides, *(each.spent for each in self.accepted)]
        self.answered, self._besides, self.accepted = NOTHING, [], []
        spent = sum_of(parts)
        shown = assembler.cut() if assembler.begun else None
        failed = FailedAttempt(self._attempt, error, spent.usage, spent.cost, shown)
        self.failed.append(failed)
        return failed
