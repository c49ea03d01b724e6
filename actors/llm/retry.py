"""The one layer of retries: ``decide`` is pure (attempt and error in, wait or give up out), ``ask`` loops."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Protocol

from msgspec import Struct

from actors.llm.base import Answer, Assembler, Block, LLMClient, Request, TextChunk, TierEnded
from actors.runtime.tasks import is_being_cancelled
from protocol.errors import ModelError

_log = logging.getLogger("polypod.llm")

#: How long a client may take to close a stream that has failed, in seconds.
CLOSE_GRACE = 5.0


class RetryPolicy(Struct, frozen=True):
    """How often and how soon, in seconds.

    ``attempts`` counts the first one. Waits grow from ``base`` by doubling up to ``cap``, of which a random
    part is taken. ``patience`` stands in for the deadline where a run has none: the longest that a server may
    ask to wait, and how long one that cannot be reached is waited for.
    """

    attempts: int = 4
    base: float = 0.5
    cap: float = 10.0
    patience: float = 60.0


class Wait(Struct, frozen=True):
    """Send the request again in ``seconds``."""

    seconds: float


class GiveUp(Struct, frozen=True):
    """Do not send it again; ``error`` is what to raise."""

    error: ModelError


def _fraction() -> float:
    """A random number from 0 up to 1: also a different one in each process that was forked."""
    return int.from_bytes(os.urandom(4)) / 2**32


def decide(
    attempt: int,
    error: ModelError,
    *,
    now: float,
    deadline: float | None = None,
    began: float | None = None,
    rng: Callable[[], float] = _fraction,
    policy: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen
) -> Wait | GiveUp:
    """What to do after ``error``, with ``attempt`` attempts used up (an error that does not count uses none).

    ``now``, ``deadline`` and ``began`` (when the request was first sent) are ``time.monotonic()`` seconds,
    ``rng`` gives numbers from 0 up to 1.
    """
    if not error.retryable or (error.counts and attempt >= policy.attempts):
        return GiveUp(error)
    asked = error.retry_after
    if asked is not None and asked > (policy.patience if deadline is None else deadline - now):
        return GiveUp(_come_back_later(error, asked))
    # everybody who was turned away would else come back at the same moment
    doublings = attempt - 1 if error.counts else 0
    spread = rng() * min(policy.cap, policy.base * 2**doublings)
    seconds = spread if asked is None else asked + spread
    until = deadline
    if until is None and not error.counts:
        until = (now if began is None else began) + policy.patience
    if until is not None and now + seconds >= until:
        return GiveUp(error)
    return Wait(seconds)


def _come_back_later(error: ModelError, seconds: float) -> ModelError:
    later = ModelError(
        error.message,
        kind=error.kind if error.kind == "connection" else "rate_limit",
        hint=f"the server asks to retry in {_spoken(seconds)}, which is longer than this run may wait",
        status=error.status,
        retry_after=seconds,
        where=error.where,
        retryable=False,
    )
    later.__cause__ = error
    return later


def _out_of_time(error: ModelError, before: ModelError) -> ModelError:
    """The run's time was up in the middle of an attempt; why the one before it had failed says more."""
    return ModelError(
        f"{error.message}; the previous attempt: {before.message}",
        kind=error.kind,
        hint=before.hint or error.hint,
        status=before.status,
        where=error.where or before.where,
        retryable=False,
    )


def _spoken(seconds: float) -> str:
    """A time as people say it: ``45 s``, ``12 min``, ``2 h 5 min``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


#: Has each block that a stream gives taken as it comes, to the stream's end.
Pour = Callable[[Callable[[Iterable[Block]], None]], Awaitable[None]]


class Listener(Protocol):
    """Receives how a request is answered, attempt by attempt.

    ``is_wanted`` says whether anybody wants the blocks, ``text`` takes those of text, with their attempt's
    number, ``block`` the others. One that has ``async end_tier(ended)`` besides receives what came of each
    tier of an escalation chain; the next tier is asked when that returns.
    """

    is_wanted: Callable[[], bool]
    text: Callable[[str, int], None]

    def begin(self, attempt: int, assembler: Assembler) -> None:
        """Note that an attempt is about to be sent. Raises what keeps it from being sent."""

    def block(self, block: Block, attempt: int) -> None:
        """Take a block that is not text; the assembler has it already."""

    def announce_retry(self, error: ModelError, wait: float) -> None:
        """Note that the attempt failed, and that another follows in ``wait`` seconds."""


async def _pour(pour: Pour, assembler: Assembler, listener: Listener, attempt: int) -> None:
    """Take the blocks of a stream of ours as they come, without a wait for each."""
    feed, is_wanted = assembler.feed, listener.is_wanted

    def take(blocks: Iterable[Block]) -> None:
        wanted = is_wanted()
        for block in blocks:
            feed(block)
            if wanted:
                _pass_on(block, listener, attempt)

    await pour(take)


async def _take_each(
    stream: AsyncIterator[Block], assembler: Assembler, listener: Listener, attempt: int
) -> None:
    """Take the blocks of any stream, one by one."""
    end_tier: Callable[[TierEnded], Awaitable[None]] | None = getattr(listener, "end_tier", None)
    feed = assembler.feed
    async for block in stream:
        feed(block)
        if type(block) is TierEnded:
            if end_tier is not None:
                await end_tier(block)
        elif listener.is_wanted():
            _pass_on(block, listener, attempt)


def _pass_on(block: Block, listener: Listener, attempt: int) -> None:
    if type(block) is TextChunk:
        listener.text(block.text, attempt)
    else:
        listener.block(block, attempt)


async def ask(
    client: LLMClient,
    request: Request,
    listener: Listener,
    policy: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Answer:
    """The model's whole answer to ``request``, asked for again as ``decide`` says.

    Raises what the client or ``listener.begin`` raises, once there is no sense in another attempt.
    """
    attempt, used = 1, 0
    began = time.monotonic()
    before: ModelError | None = None
    while True:
        assembler = Assembler()
        listener.begin(attempt, assembler)
        try:
            stream = client.stream(request)
            try:
                pour = getattr(stream, "pour", None)
                if pour is not None:
                    await _pour(pour, assembler, listener, attempt)
                else:
                    await _take_each(stream, assembler, listener, attempt)
            except BaseException as error:
                await _close(stream)
                if not _stands(assembler, error):
                    raise
            return assembler.answer()
        except ModelError as error:
            if is_being_cancelled():  # whatever its client made of that
                raise
            used += error.counts
            now = time.monotonic()
            decision = decide(used, error, now=now, deadline=request.deadline, began=began, policy=policy)
            if isinstance(decision, GiveUp):
                out_of_time = request.deadline is not None and now >= request.deadline
                final = _out_of_time(error, before) if before and out_of_time else decision.error
                raise final from error.__cause__
            before = error
            listener.announce_retry(error, decision.seconds)
        await sleep(decision.seconds)
        attempt += 1


def _stands(assembler: Assembler, error: BaseException) -> bool:
    """Whether the answer was whole by the time the client failed: then the failure is only logged."""
    if not assembler.ended or not isinstance(error, Exception):
        return False
    _log.warning("a client failed after the end of its answer, which is kept", exc_info=error)
    return True


async def _close(stream: AsyncIterator[Block]) -> None:
    """Close a stream that has not come to its end; why it is given up says more than what this raises."""
    close = getattr(stream, "aclose", None)
    if close is None:
        return
    try:
        async with asyncio.timeout(CLOSE_GRACE):
            await close()
    except Exception as error:  # noqa: BLE001 - a client of the user's own; TimeoutError too
        _log.warning("a client could not close its stream", exc_info=error)
