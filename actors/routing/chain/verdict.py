"""Judgements on a tier's answer, pure: verdicts, faults that need no verifier, and their wording."""

from __future__ import annotations

from typing import NamedTuple

from actors.llm.base import Answer, Request
from actors.routing.chain.task import misfit
from actors.runtime.redact import redacted
from protocol.errors import Failure
from protocol.routing import Verdict
from protocol.text import encodable

#: How much of what a verifier says, or of an error, is kept, in characters.
MOST_FEEDBACK = 4000


class Said(NamedTuple):
    """A verdict, and whether it speaks of the answer: what a verifier fails with does not."""

    verdict: Verdict
    is_of_answer: bool = True


def rejected(feedback: str) -> Said:
    """A verdict against the answer."""
    return Said(Verdict(accept=False, feedback=feedback))


def fault_of(answer: Answer, request: Request) -> str | None:
    """What is wrong with an answer whatever a verifier would say; None if nothing is."""
    text = answer.item.text
    if answer.item.refused:
        return "The model refused the task."
    if answer.stop_reason == "max_tokens":
        return "The answer was cut off: it must be shorter."
    if not text.strip():
        return "The answer was empty."
    return misfit(request, text)


def not_offered(answer: Answer, request: Request) -> str | None:
    """The name of a tool that the answer calls and that its model was not offered."""
    known = {each.name for each in request.tools}
    return next((each.name for each in answer.item.calls if each.name not in known), None)


def error_words(error: BaseException) -> str:
    """What an error says."""
    return Failure.of(error).message or type(error).__name__


def kept_words(words: str) -> str:
    """Words in a form that can be kept: without secrets, and short enough for an event."""
    if not words:
        return words
    words = redacted(encodable(words[: 4 * MOST_FEEDBACK]))  # which costs by their length
    return words if len(words) <= MOST_FEEDBACK else words[: MOST_FEEDBACK - 1] + "…"
