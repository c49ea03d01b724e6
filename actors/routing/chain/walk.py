"""``Walk``: the way of one request through the tiers of a chain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from msgspec.structs import replace

from actors.llm.base import (
    Answer,
    Block,
    End,
    Meter,
    Request,
    TierEnded,
    TierStarted,
)
from actors.llm.retry import GiveUp, RetryPolicy, ask, decide
from actors.pod.accounts.budget import OverBudget
from actors.pod.accounts.exchange import Exchange
from actors.pod.accounts.spent import NOTHING, Spent, sum_of
from actors.routing.chain.begin import ChainParts, begin
from actors.routing.chain.shown import ShownAnswer, bound, with_end
from actors.routing.chain.task import (
    NO_VERDICT,
    Progress,
    choosing,
    last_words_at,
    offered,
    scratch_of,
    task_start,
    task_words,
    with_feedback,
)
from actors.routing.chain.tiers import Recording, Tier, without_words
from actors.routing.chain.verdict import Said, error_words, fault_of, kept_words, not_offered, rejected
from actors.routing.verifiers import Case, judge
from actors.runtime.tasks import is_being_cancelled
from protocol.errors import ChainExhausted, ModelError
from protocol.routing import AttemptRecord, AttemptVerdict, Verdict

#: A tier that another follows is asked once: that one is its retry.
_ONCE = RetryPolicy(attempts=1, patience=0.0)


class Walk:
    """Asks tier by tier until one's answer is accepted. Raises ChainExhausted where none is."""

    def __init__(self, parts: ChainParts, request: Request, meter: Meter) -> None:
        self._parts = parts
        self._request = request
        self._meter = meter
        self._at = task_start(request)
        self._progress = Progress(None, ())
        #: Of the tier at work: when it was asked, and whether its model was loaded then.
        self._began = 0.0
        self._warm = False
        self._spent = NOTHING
        self._last_error: BaseException | None = None

    async def blocks(self) -> AsyncGenerator[Block, None]:
        """The blocks of the answer, and the result of each tier."""
        progress = self._progress = await begin(self._parts, self._request, self._at)
        while progress.next < len(progress.order):
            tier = await self._begin_tier(progress.order[progress.next])
            if self._waits(tier):
                answer = await self._ask_and_hold(tier)
                if answer is not None:
                    for block in answer:
                        yield block
                    return
            else:
                ended = False
                async with aclosing(self._show(tier)) as shown:  # who leaves early frees the connection
                    async for block in shown:
                        yield block
                        ended = type(block) is End
                if ended:
                    return
            yield TierEnded(progress.attempts[-1])
            progress.next, progress.broke = progress.next + 1, 0
        raise self._exhausted()

    # -- a tier that is asked now -----------------------------------------------------------------

    async def _begin_tier(self, place: int) -> Tier:
        """Begin with the tier at that place, and return it. Raises where nothing is to be asked any more."""
        self._check_time()
        self._began, self._spent = time.monotonic(), NOTHING
        tier, probe, warm = self._parts.tiers[place], self._parts.probe, self._progress.warm
        if probe is not None and not tier.entry.is_cloud and place not in warm:
            warm[place] = await probe.is_warm(tier.entry.model)
        self._warm = warm.get(place, False)
        return tier

    def _check_time(self) -> None:
        """Raise if the time is up, or a client ignored its cancel: no more money is spent."""
        if is_being_cancelled():
            raise asyncio.CancelledError
        deadline = self._request.deadline
        if deadline is not None and time.monotonic() >= deadline:
            raise self._out_of_time()

    def _out_of_time(self) -> ModelError:
        done = len(self._progress.attempts)
        return ModelError(
            f"time ran out before a tier was accepted; {done} of {len(self._parts.tiers)} had been",
            kind="timeout",
            retryable=False,
        )

    # -- a tier's request ------------------------------------------------------------------------

    def _waits(self, tier: Tier) -> bool:
        """Whether the tier's answer is held back until it is accepted, instead of being shown as
        it arrives.
        """
        if self._request.is_of_helper:
            return False
        return tier.is_verified or (self._request.output_schema is not None and not self._is_last)

    @property
    def _is_last(self) -> bool:
        return self._progress.next + 1 >= len(self._progress.order)

    def _for(self, tier: Tier) -> Request:
        """The request as the tier gets it."""
        request, progress = self._request, self._progress
        words = None if progress.words is None else self._at + progress.words
        tools = request.tools
        if tier.is_verified and not request.is_of_helper:
            tools = offered(tools, self._parts.tools)
        forced = request.forced_tool if any(each.name == request.forced_tool for each in tools) else None
        shown = (words, progress.notes) if progress.notes else ()
        return replace(
            request,
            items=with_feedback(request.items, words, progress.notes),
            tools=tools,
            model=tier.names.asked,
            forced_tool=forced,
            settings=choosing(request.settings, tools),
            deadline=self._until(tier.entry.timeout),
            scratch=scratch_of(request, tier.name, shown),
        )

    def _until(self, seconds: float | None) -> float | None:
        """When a step has to be done (``time.monotonic()``) that may take so long."""
        own = None if seconds is None else time.monotonic() + seconds
        deadline = self._request.deadline
        return own if deadline is None else deadline if own is None else min(own, deadline)

    def _exchange(self, tier: Tier, request: Request) -> Exchange:
        made: Exchange = self._meter.exchange(tier.client, tier.price, request)
        return made

    # -- an answer that waits to be accepted -----------------------------------------------------

    async def _ask_and_hold(self, tier: Tier) -> Sequence[Block] | None:
        """The blocks of the tier's answer with its end, once that is accepted; None if it was not."""
        request, recording = self._for(tier), Recording(tier.client)
        exchange = self._exchange(tier, request)
        policy = self._parts.retry if self._is_last else _ONCE
        try:
            async with bound(request.deadline):
                answer = await ask(recording, request, exchange, policy)
        except BaseException as error:
            exchange.end(error)
            self._note_failed(exchange)
            if not self._is_of_tier(error):
                raise
            self._fail(tier, error, request.deadline)
            return None
        self._settle(exchange, answer, recording.cost)
        start: list[Block] = [TierStarted(tier.name)]
        if answer.item.calls or answer.stop_reason == "pause":
            unknown = not_offered(answer, request)
            if unknown is None:
                passed = without_words(recording.blocks) if tier.is_verified else recording.blocks
                return start + with_end(passed, tier)
            said = rejected(f"It called {unknown}, a tool that it does not have.")
        else:
            said = await self._verdict(tier, answer)
        if not said.verdict.accept:
            self._reject(tier, answer.item.text, said)
            return None
        record = self._record(tier, "accept", kept_words(said.verdict.feedback))
        *blocks, end = with_end(recording.blocks, tier)
        return [*start, *blocks, TierEnded(record), end]

    def _is_of_tier(self, error: BaseException) -> bool:
        """Whether an error is the tier's own: the next one is asked. Raises where the time is up."""
        if not isinstance(error, Exception | asyncio.CancelledError) or isinstance(error, OverBudget):
            return False
        if is_being_cancelled():  # whatever its client made of that; else it cancelled something by itself
            return False
        self._check_time()
        return True

    def _settle(self, exchange: Any, answer: Answer, cost: float | None) -> None:
        if cost is not None:
            exchange.known_cost = cost
        settled = exchange.settle_answer(answer)
        self._note_failed(exchange)
        spent = Spent(answer.usage, settled)
        self._spent = spent if self._spent is NOTHING else sum_of((self._spent, spent))

    def _note_failed(self, exchange: Exchange) -> None:
        if exchange.failed:
            failed = (Spent(each.usage, each.cost) for each in exchange.failed)
            self._spent = sum_of((self._spent, *failed))

    async def _verdict(self, tier: Tier, answer: Answer) -> Said:
        """What is to be said of an answer without calls."""
        if (fault := fault_of(answer, self._request)) is not None:
            return rejected(fault)
        return await self._verify(answer.item.text) if tier.is_verified else Said(Verdict(accept=True))

    async def _verify(self, text: str) -> Said:
        """The verifier's verdict. A verifier that fails has accepted nothing."""
        verifier = self._parts.verifier
        assert verifier is not None
        self._check_time()
        self._meter.check()
        until = self._until(self._parts.verify_timeout)
        task = task_words(self._request.items, self._at)
        case = Case(self._request.system or "", task, text, self._meter, until)
        try:
            async with bound(until):
                return Said(await judge(verifier, case))
        except BaseException as error:
            if not self._is_of_tier(error):
                raise
            late = isinstance(error, TimeoutError) and until is not None and time.monotonic() >= until
            words = f"no verdict within {self._parts.verify_timeout:g} s" if late else error_words(error)
            return Said(Verdict(accept=False, feedback=f"{NO_VERDICT}{words}"), is_of_answer=False)

    # -- an answer that is shown as it comes -----------------------------------------------------

    async def _show(self, tier: Tier) -> AsyncGenerator[Block, None]:
        """Ask a tier; gives the blocks of its answer as they come, and their end, and nothing where it failed
        before any came. Raises what is to be asked again where it broke in their middle.
        """
        used, began = 0, time.monotonic()
        while True:
            answer = ShownAnswer(tier, self._for(tier))
            exchange = self._exchange(tier, answer.request)
            exchange.begin(used + 1, answer.assembler)
            try:
                async with aclosing(answer.blocks(exchange)) as blocks:
                    async for block in blocks:
                        yield block
                break
            except BaseException as error:  # noqa: BLE001 - raised again unless it is the tier's
                seconds = self._wait_after(error, answer, used, began)
                self._end_attempt(exchange, error, seconds)
                if answer.began:
                    async for ended in self._break(tier, error, answer.request.deadline):
                        yield ended
                if seconds is None:
                    self._fail(tier, error, answer.request.deadline)
                    return
                used += getattr(error, "counts", 1)
            await asyncio.sleep(seconds)
        self._settle(exchange, answer.assembler.answer(), answer.cost)
        if answer.is_final:
            yield TierEnded(self._record(tier, "accept", ""))
        for last in answer.last:
            yield last

    def _end_attempt(self, exchange: Exchange, error: BaseException, seconds: float | None) -> None:
        """End an attempt that gave no answer. Raises the error unless it is the tier's own."""
        if isinstance(error, ModelError) and seconds is not None:
            exchange.announce_retry(error, seconds)
        else:
            exchange.end(error)
        self._note_failed(exchange)
        if not self._is_of_tier(error):
            raise error

    def _wait_after(self, error: BaseException, answer: ShownAnswer, used: int, began: float) -> float | None:
        """After how many seconds a tier is asked again that has shown nothing yet; None for never."""
        if answer.began or not isinstance(error, ModelError) or is_being_cancelled():
            return None
        decision = decide(
            used + error.counts,
            error,
            now=time.monotonic(),
            deadline=self._request.deadline,
            began=began,
            policy=self._parts.retry if self._is_last else _ONCE,
        )
        return None if isinstance(decision, GiveUp) else decision.seconds

    async def _break(self, tier: Tier, error: BaseException, until: float | None) -> AsyncIterator[TierEnded]:
        """End a tier whose answer broke off after some of it was shown: the caller has to ask again, and then
        the next tier continues, or this one if it is the last.
        """
        progress = self._progress
        if self._is_last:
            progress.broke += 1
            if (
                isinstance(error, ModelError)
                and error.retryable
                and progress.broke < self._parts.retry.attempts
            ):
                progress.goes_on = True
                raise error
        self._fail(tier, error, until)
        yield TierEnded(progress.attempts[-1])
        if self._is_last:
            raise self._exhausted() from error
        progress.next, progress.goes_on = progress.next + 1, True
        raise ModelError(
            f"{tier.name} broke off in the middle of its answer: {error_words(error)}",
            kind=error.kind if isinstance(error, ModelError) else "server",
            hint="the next tier of the chain is tried",
            where=error.where if isinstance(error, ModelError) else None,
            retryable=True,
        ) from error

    # -- what came of it -------------------------------------------------------------------------

    def _exhausted(self) -> ChainExhausted:
        progress = self._progress
        return ChainExhausted(
            progress.attempts, best=progress.best, errors=progress.errors, last=self._last_error
        )

    def _fail(self, tier: Tier, error: BaseException, until: float | None) -> None:
        """Note that the tier gave no answer."""
        self._last_error = error
        late = isinstance(error, TimeoutError) and until is not None and time.monotonic() >= until
        words = (
            f"no answer within {tier.entry.timeout:g} s"
            if late and tier.entry.timeout
            else error_words(error)
        )
        self._add(tier, "error", kept_words(words))

    def _reject(self, tier: Tier, output: str, said: Said) -> None:
        """Note that the tier's answer was not accepted; later tiers see what was said about it."""
        progress, feedback = self._progress, kept_words(said.verdict.feedback)
        progress.best = output
        if said.is_of_answer and feedback:
            progress.notes = (*progress.notes, feedback)
            if progress.words is None and (at := last_words_at(self._request.items, self._at)) is not None:
                progress.words = at - self._at
        self._add(tier, "escalate", feedback)

    def _add(self, tier: Tier, verdict: AttemptVerdict, feedback: str) -> None:
        progress = self._progress
        why = feedback if verdict == "error" else f"rejected: {feedback}" if feedback else "rejected"
        progress.attempts = (*progress.attempts, self._record(tier, verdict, feedback))
        progress.errors = (*progress.errors, (tier.name, why))

    def _record(self, tier: Tier, verdict: AttemptVerdict, feedback: str) -> AttemptRecord:
        return AttemptRecord(
            tier.entry.model,
            tier.entry.tier,
            round((time.monotonic() - self._began) * 1000),
            self._warm,
            verdict,
            feedback,
            self._spent.usage,
            self._spent.cost,
        )
