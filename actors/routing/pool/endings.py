"""What becomes of a job once a runner is through with it, and until when a runner is limited; pure."""

from __future__ import annotations

import math
import re
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from actors.routing.pool.queue import Claimed, Ended, Returned
from protocol.errors import Failure
from protocol.foreign import words_of
from protocol.jobs import Changes, Execution
from protocol.usage import Usage

#: How an attempt came out: ``died`` where the runner ended without a word about the job.
OutcomeKind = Literal["done", "failed", "cancelled", "died"]
#: How often a job is begun anew since a runner died over it.
_REPEATS = 1
#: Seconds that a runner is left alone whose limit does not say when it ends, and that it always is.
_UNKNOWN, _LEAST = 60.0, 1.0
#: Deaths in a row after which a runner is left alone, for a second at first, and for a minute at most.
_DEATHS, _LONGEST = 3, 60.0
_SUMMARY = 280

_LIMIT_WORDS = re.compile(r"rate.?limit|usage limit|too many requests|quota (?:is )?exceeded", re.IGNORECASE)
#: ``usage limit reached|1735689600``: as Claude Code prints when a limit ends; others write it behind a word.
_EPOCH = re.compile(r"(?:\||\bat|resets?:?)\s*(\d{10})\b", re.IGNORECASE)
_SOON = re.compile(
    r"(?:try again|retry|resets?|retry.?after)\D{0,12}?(\d+(?:\.\d+)?)\s*(ms|s|sec|m|min|h|hour|d\b|day)?",
    re.IGNORECASE,
)
_UNITS = {
    "ms": 0.001,
    "s": 1.0,
    "sec": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
}
_HEADING = re.compile(r"^#+\s*summary\s*:?\s*$", re.IGNORECASE | re.MULTILINE)


class Outcome(Struct, frozen=True, kw_only=True):
    """How an attempt at a job came out."""

    kind: OutcomeKind
    text: str | None = None
    model: str | None = None
    usage: Usage | None = None
    cost: float | None = None
    seconds: float | None = None
    error: Failure | None = None
    changes: Changes | None = None


def limited_until(outcome: Outcome, now: float) -> float | None:
    """Until when its runner takes no more jobs, in seconds since the epoch; None where it is not limited."""
    error = outcome.error
    if error is None or outcome.kind == "cancelled" or not _is_limit(error):
        return None
    until, wait = (_number(error.details.get(name)) for name in ("until", "retry_after"))
    if until is None and wait is not None:
        until = now + wait
    if until is None:
        until = _end_in_words(str(error.message), now)
    return max(until, now + _LEAST)


def _number(value: Any) -> float | None:
    """A time that is one: an error of others may carry anything."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _is_limit(error: Failure) -> bool:
    kind = error.details.get("kind")
    if kind or error.kind != "AgentFailed":
        return bool(kind == "rate_limit")
    return _LIMIT_WORDS.search(error.message) is not None  # a program of others, which prints words alone


def _end_in_words(words: str, now: float) -> float:
    if (epoch := _EPOCH.search(words)) is not None:
        return float(epoch[1])
    if (soon := _SOON.search(words)) is not None:
        return now + float(soon[1]) * _UNITS[(soon[2] or "s").lower()]
    return now + _UNKNOWN


def rest_after(deaths: int, now: float) -> float | None:
    """Until when a runner is left alone that died so often in a row; None where it is not."""
    if deaths < _DEATHS:
        return None
    return now + min(_LONGEST, 2.0 ** min(deaths - _DEATHS, 10))


def decide(
    claimed: Claimed, outcome: Outcome, *, limited: bool, leaving: bool, durable: bool, now: float
) -> Ended | Returned:
    """Whether the job has ended with that, or waits again: a limited runner has done nothing, one that died
    gets a second chance, and what a pool leaves that is ``leaving`` others do, where there are any.
    """
    if limited or (leaving and durable and outcome.kind in {"cancelled", "died"}):
        return Returned(claimed.number, uncounted=True)
    if outcome.kind == "died" and claimed.deaths < _REPEATS:
        return Returned(claimed.number, avoid=claimed.agent)
    execution = replace(
        claimed.execution(),
        status="failed" if outcome.kind == "died" else outcome.kind,
        model=outcome.model or claimed.model or claimed.job.model,
        result=outcome.text,
        summary=None if outcome.text is None else summary_of(outcome.text),
        changes=outcome.changes,
        usage=outcome.usage,
        cost=outcome.cost,
        seconds=outcome.seconds,
        error=outcome.error,
        ended_at=now,
    )
    return Ended(claimed.number, _that_can_be_kept(execution))


def _that_can_be_kept(execution: Execution) -> Execution:
    """The execution, failed where its runner gave something that cannot be encoded: else the queue could keep
    nothing any more.
    """
    try:
        msgspec.json.encode(execution)
    except Exception as error:  # noqa: BLE001 - of whatever is in it
        why = Failure("TypeError", f"its runner returned a value that cannot be stored: {words_of(error)}")
        plain = dict.fromkeys(("model", "result", "summary", "changes", "usage", "cost", "seconds"))
        return replace(execution, status="failed", error=why, **plain)
    return execution


def summary_of(text: str) -> str:
    """A few words of an answer: what stands under a heading "Summary", else its first paragraph."""
    heading = _HEADING.search(text)
    behind = text if heading is None else text[heading.end() :]
    first = behind.strip().partition("\n\n")[0]
    words = " ".join(first.split())
    return words if len(words) <= _SUMMARY else words[: _SUMMARY - 1] + "…"
