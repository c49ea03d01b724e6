"""Glob patterns over relative paths, in time that no pattern can blow up."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable

from actors.tools.alike import alike
from protocol.errors import ToolError

_MOST_ALTERNATIVES = 64

_Segment = re.Pattern[str] | None
"""One step of a pattern; None stands for ``**``: any number of steps."""


def matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a relative path fits ``pattern``.

    ``*``, ``?`` and ``[…]`` stay within one name, ``**`` crosses directories, ``{a,b}`` is either. A
    pattern without ``/`` fits names at any depth; what looks the same is the same (``alike``). Raises
    ToolError for what can never fit.
    """
    if not pattern.strip("/ ") or pattern.startswith("/") or ".." in pattern.split("/"):
        raise ToolError(
            f"the pattern {pattern!r} matches nothing: patterns are relative to path and cannot go up",
            hint="say where to look with path and what to find with pattern, as in '*.py' or 'src/**/*.md'",
        )
    alternatives = [_segments(each) for each in _expanded(alike(pattern))]
    return lambda path: any(_fits(segments, alike(path).split("/")) for segments in alternatives)


def names_in(pattern: str) -> set[str]:
    """The names that ``pattern`` spells out, without wildcards."""
    steps = {step for each in _expanded(alike(pattern)) for step in each.split("/")}
    return {step for step in steps if step and not re.search(r"[*?\[\]]", step)}


def _segments(pattern: str) -> list[_Segment]:
    steps = [step for step in pattern.split("/") if step not in {"", "."}]
    if "/" not in pattern.rstrip("/"):
        steps = ["**", *steps]
    # fnmatch makes patterns that match in linear time, since 3.9
    return [None if step == "**" else re.compile(fnmatch.translate(step)) for step in steps]


def _fits(segments: list[_Segment], names: list[str]) -> bool:
    at = _with_skipped(segments, {0})
    for name in names:
        steps = ((each, segments[each]) for each in at if each < len(segments))
        taken = {
            each if step is None else each + 1 for each, step in steps if step is None or step.match(name)
        }
        at = _with_skipped(segments, taken)
    return len(segments) in at


def _with_skipped(segments: list[_Segment], at: set[int]) -> set[int]:
    """The places in a pattern, and those behind each ``**`` that stands for no step."""
    reached = set(at)
    for number, step in enumerate(segments):
        if step is None and number in reached:
            reached.add(number + 1)
    return reached


def _expanded(pattern: str) -> list[str]:
    """The patterns that ``{a,b}`` stands for; nested braces are read from the inside out."""
    todo, done = [pattern], []
    while todo:
        each = todo.pop()
        found = re.search(r"\{([^{}]*,[^{}]*)\}", each)
        if found is None:
            done.append(each)
        else:
            todo += [each[: found.start()] + word + each[found.end() :] for word in found[1].split(",")]
        if len(todo) + len(done) > _MOST_ALTERNATIVES:
            raise ToolError(f"the pattern {pattern!r} expands to more than {_MOST_ALTERNATIVES} patterns")
    return done
