"""Whether and when a failed request is sent again, pure: attempt and error in, wait or give up out.

There is one layer of retries, around a client, and this is what it asks. It sends again only what nobody has
seen any output of (or what its caller has declared void).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from msgspec import Struct

from actors.llm.base import Answer, Assembler, LLMClient, Request
from protocol.errors import ModelError


class RetryPolicy(Struct, frozen=True):
    """How often and how soon, in seconds.

    ``attempts`` counts the first one. Waits grow from ``base`` by doubling up to ``cap``, of which a random
    part is taken. ``patience`` is the longest that a server may ask to wait where a run has no deadline.
    """

    attempts: int = 4
    base: float = 0.5
    cap: float = 10.0
    patience: float = 60.0


class Wait(Struct, frozen=True):
    """Send the request again in ``seconds``."""

    seconds: float


class GiveUp(Struct, frozen=True):
    """Do not send it again; ``error`` is what to tell."""

    error: ModelError


def decide(
    attempt: int,
    error: ModelError,
    *,
    now: float,
    deadline: float | None = None,
    rng: Callable[[], float] = random.random,
    policy: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen
) -> Wait | GiveUp:
    """What to do after attempt ``attempt`` (from 1) failed with ``error``.

    ``now`` and ``deadline`` are ``time.monotonic()`` seconds, ``rng`` gives numbers from 0 up to 1.
    """
    if not error.retryable or attempt >= policy.attempts:
        return GiveUp(error)
    asked = error.retry_after
    if asked is not None and asked > (policy.patience if deadline is None else deadline - now):
        return GiveUp(_come_back_later(error, asked))
    # everybody who was turned away would else come back at the same moment
    spread = rng() * min(policy.cap, policy.base * 2 ** (attempt - 1))
    seconds = spread if asked is None else asked + spread
    if deadline is not None and now + seconds >= deadline:
        return GiveUp(error)
    return Wait(seconds)


def _come_back_later(error: ModelError, seconds: float) -> ModelError:
    later = ModelError(
        error.message,
        kind=error.kind if error.kind == "connection" else "rate_limit",
        hint=f"it asks to come back in {_spoken(seconds)}, which is longer than this run may wait",
        status=error.status,
        retry_after=seconds,
        where=error.where,
        retryable=False,
    )
    later.__cause__ = error
    return later


def _spoken(seconds: float) -> str:
    """A time as people say it: ``45 s``, ``12 min``, ``2 h 5 min``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


async def ask(
    client: LLMClient,
    request: Request,
    *,
    policy: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Answer:
    """One whole answer, asked for again as ``decide`` says; raises ModelError.

    For callers to whom a part of an answer is nothing, so that every attempt may be followed by another.
    """
    attempt = 1
    while True:
        assembler = Assembler()
        try:
            async for block in client.stream(request):
                assembler.feed(block)
            return assembler.answer()
        except ModelError as error:
            decision = decide(attempt, error, now=time.monotonic(), deadline=request.deadline, policy=policy)
            if isinstance(decision, GiveUp):
                raise decision.error from error.__cause__
        await sleep(decision.seconds)
        attempt += 1
