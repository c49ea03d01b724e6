"""The failures that the end of a run may carry, in words and as data; pure."""

from __future__ import annotations

from actors.pod.accounts.budget import Exceeded
from protocol.errors import Failure, ModelError
from protocol.items import AssistantItem


def steps_reached(max_steps: int) -> Failure:
    """The failure of a run that has sent as many requests as it may."""
    return Failure(
        "LimitReached",
        f"the run reached max_steps = {max_steps} requests to the model",
        "raise max_steps, or continue with another run",
        {"limit": "max_steps", "value": max_steps},
    )


def tokens_reached(max_tokens: int | None) -> Failure:
    """The failure of a run whose last answer was cut off, naming what cut it."""
    if max_tokens is None:
        return Failure(
            "LimitReached",
            "the model's answer was cut off at its server's own limit on max_tokens",
            "set max_tokens in [worker]",
            {"limit": "max_tokens", "value": None},
        )
    return Failure(
        "LimitReached",
        f"the model's answer was cut off at max_tokens = {max_tokens}",
        "raise max_tokens in [worker]",
        {"limit": "max_tokens", "value": max_tokens},
    )


def refused(answer: AssistantItem, stop_reason: str | None) -> Failure:
    """The failure of a run whose model or provider refused to answer, in its own words."""
    who = (
        "the provider's content filter cut the answer"
        if stop_reason == "content_filter"
        else "the model refused"
    )
    words = answer.text.strip()
    return Failure(
        "Refused",
        f"{who}: {words}" if words else f"{who}, and gave no reason",
        "rephrase the request: later requests leave this turn out",
        {"stop_reason": stop_reason},
    )


def said_nothing() -> Failure:
    """The failure of a run whose last answer is empty."""
    return Failure("EmptyAnswer", "the model's answer is empty", "ask again, or look at the server's log")


def paused_in_vain(model: str, pauses: int) -> ModelError:
    """The error of a model that kept pausing its turn, or paused with nothing to continue from."""
    words = f"{pauses} times in a row" if pauses > 1 else "with nothing to continue from"
    return ModelError(f"{model} paused its turn {words}", kind="protocol", retryable=False)


def budget_reached(exceeded: Exceeded) -> Failure:
    """The failure of a run that has reached a budget, naming which."""
    words = f"{exceeded}" if exceeded.budget == "seconds" else f"the next call would exceed {exceeded}"
    hint = f"raise budget.{exceeded.budget}"
    return Failure("BudgetExceeded", words, hint, exceeded._asdict())


def still_too_long(overflow: ModelError, failed: BaseException) -> ModelError:
    """The error of a request that was too long when the compaction meant to shorten it failed too: it names
    both, and the compaction's error is its cause.
    """
    failure = Failure.of(failed)
    error = ModelError(
        f"{overflow.message}; and {failure.message}",
        kind=overflow.kind,
        hint=failure.hint or overflow.hint,
        status=overflow.status,
        where=overflow.where,
        retryable=False,
        prompt_tokens=overflow.prompt_tokens,
        context_window=overflow.context_window,
    )
    error.__cause__ = failed
    return error
