"""Requests and tokens per minute, as a server allows them: what would exceed them waits for its turn."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

from msgspec import Struct

from protocol.errors import ModelError
from protocol.model_settings import ModelSettings
from protocol.usage import Usage

#: What is counted together, in seconds.
WINDOW = 60.0
#: Bytes of a request that are taken for one token, until its server has counted them.
BYTES_PER_TOKEN = 4


class RateLimits(Struct, frozen=True):
    """How many requests, and tokens of prompts and answers, a server accepts within a minute."""

    requests: int | None = None
    tokens: int | None = None

    @classmethod
    def of(cls, settings: ModelSettings) -> RateLimits | None:
        """The limits that settings ask for; None where they ask for none."""
        limits = cls(settings.requests_per_minute, settings.tokens_per_minute)
        return None if limits == cls() else limits


class Sent:
    """A request that was let through, and what it counts for until its minute is over."""

    __slots__ = ("at", "tokens")

    def __init__(self, at: float, tokens: int) -> None:
        self.at = at
        self.tokens = tokens

    def settle(self, usage: Usage | None) -> None:
        """Count what the server reports instead of the estimate."""
        if usage is not None and usage.total_tokens is not None:
            self.tokens = usage.total_tokens


class RateWindow:
    """What was sent to one server within the last minute. Used on one event loop. ``clock`` gives monotonic
    seconds, ``sleep`` waits for a number of them.
    """

    def __init__(
        self,
        limits: RateLimits,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._sleep = sleep
        self._sent: deque[Sent] = deque()
        self._turn = asyncio.Lock()

    async def enter(self, where: str, tokens: int, deadline: float | None) -> Sent:
        """Wait until a request of that many tokens fits, in order of arrival. Raises ModelError if that is
        after ``deadline`` (of ``clock``). A request that is larger than the limit goes alone.
        """
        async with self._turn:
            while (seconds := self._seconds_until(tokens)) > 0:
                if deadline is not None and self._clock() + seconds >= deadline:
                    raise self._too_late(where, seconds)
                await self._sleep(seconds)
            sent = Sent(self._clock(), tokens)
            self._sent.append(sent)
            return sent

    def _seconds_until(self, tokens: int) -> float:
        """How long it takes until a request of so many tokens fits, as far as is known now."""
        now, sent, limits = self._clock(), self._sent, self._limits
        while sent and sent[0].at + WINDOW <= now:
            sent.popleft()
        until = now
        if limits.requests is not None and len(sent) >= limits.requests:
            until = sent[len(sent) - limits.requests].at + WINDOW
        if limits.tokens is not None:
            excess = sum(each.tokens for each in sent) + tokens - limits.tokens
            for each in sent:
                if excess <= 0:
                    break
                excess -= each.tokens
                until = max(until, each.at + WINDOW)
        return until - now

    def _too_late(self, where: str, seconds: float) -> ModelError:
        return ModelError(
            f"{where}: the next request would have to wait {seconds:.0f} s for the limit on "
            "requests or tokens per minute, which is longer than this run allows",
            kind="rate_limit",
            hint="raise requests_per_minute and tokens_per_minute in [model], or the run's budget of seconds",
            where=where,
            retryable=False,
        )
