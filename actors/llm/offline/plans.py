"""The machinery of the offline model's plans: generators that ask for calls and end with an answer.

A plan is a generator that yields the calls it wants, is sent their results, and returns its answer. It is
played from the start for every request, with the results that the history already has, so the model keeps
nothing between two requests.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple

from protocol.items import Item, ToolCall, ToolResult
from protocol.tools import ToolSpec

_SHOWN = 4000
_MOST_ATTEMPTS = 5


class Wanted(NamedTuple):
    """A call that a plan wants, and what to say with it."""

    name: str
    arguments: dict[str, Any]
    saying: str


class Answer(NamedTuple):
    """The result of a plan: words, and the ``matter`` that a later "write it to …" refers to."""

    text: str
    matter: str = ""


class OfflineContext(NamedTuple):
    """What a plan may know: the available tools, the history, how many of its items precede this run, and the
    result of the step before.
    """

    tools: Mapping[str, ToolSpec]
    items: Sequence[Item] = ()
    earlier: int = 0
    before: str = ""


# Only at the beginning: a path in an error may contain the word as well.
_INTERRUPTED = re.compile(r"\W*(?:(?:the|this) (?:tool )?call (?:was|is) )?interrupted\b", re.IGNORECASE)

Plan = Generator[Wanted, ToolResult, Answer]
Pairs = Sequence[tuple[ToolCall, ToolResult]]
Use = Generator[Wanted, ToolResult, ToolResult]


class Lacking(Exception):  # noqa: N818 - it carries a name
    """A plan needs a tool that the pod does not have."""


def follow(plan: Plan, context: OfflineContext, left: list[tuple[ToolCall, ToolResult]]) -> Wanted | Answer:
    """Play one plan as far as the results in ``left`` reach; those it used are removed."""
    try:
        wanted = next(plan)
        while True:
            result = _taken(wanted, left)
            if result is None:
                return wanted
            wanted = plan.send(result)
    except StopIteration as end:
        answer: Answer = end.value
        return answer
    except Lacking as lacking:
        there = ", ".join(context.tools) or "none"
        return Answer(
            f"For that I would need the tool {lacking}, which this pod does not have (its tools: {there}). "
            'The built-in ones come with `[tools] builtin = ["files", "search", "shell"]` in the manifest.'
        )


def _taken(wanted: Wanted, left: list[tuple[ToolCall, ToolResult]]) -> ToolResult | None:
    for n, (call, result) in enumerate(left):
        if call.name == wanted.name and call.arguments == wanted.arguments:
            del left[n]
            return result
    return None


def was_interrupted(result: ToolResult) -> bool:
    """Whether the outcome of the call is unknown: the process died, or the run was stopped."""
    return result.is_error and _INTERRUPTED.match(result.text) is not None


def was_not_run(result: ToolResult) -> bool:
    """Whether the call never began."""
    return result.is_error and result.text.startswith("not run:")


def said(answer: Answer) -> Plan:
    """A plan that needs no call."""
    return answer
    yield


def use(
    context: OfflineContext, name: str, arguments: dict[str, Any], saying: str, *, again: bool = True
) -> Use:
    """Call a tool. A call that never began is made again, and an interrupted one if that does no harm
    (``again``).
    """
    if name not in context.tools:
        raise Lacking(name)
    wanted = Wanted(name, arguments, saying)
    result = yield wanted
    for _ in range(_MOST_ATTEMPTS - 1):
        if not (was_not_run(result) or (again and was_interrupted(result))):
            break
        result = yield wanted
    return result


def shown(text: str) -> str:
    """A text as an answer shows it, shortened to its beginning if it is long."""
    text = text.rstrip("\n")
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}\n… ({len(text) - _SHOWN:,} more characters)"
