"""Tracks which activities (compactions and memory jobs) a session's log shows as open, and how to
end them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from protocol.errors import Failure, PodError
from protocol.events import FAILED, Activity, DurableEvent, RunEnd


def still_open(activities: tuple[Activity, ...], event: DurableEvent) -> tuple[Activity, ...]:
    """The activities that are open after ``event``, given those before it."""
    if event.starts is not None:
        return (*(each for each in activities if each != event.starts), event.starts)
    if event.ends is None:
        return activities
    return tuple(each for each in activities if each != event.ends)


#: The error of activities that a branch does not continue.
ELSEWHERE = "it continues in the session that this one branched off from"


def ends_of(
    activities: Sequence[Activity], open_run: str | None, why: str
) -> Iterator[tuple[type[DurableEvent], str | None, dict[str, Any]]]:
    """The events that end the ``activities`` as failed: the kind of each, its run and its own fields."""
    for activity in activities:
        error = _no_end(activity, why)
        yield FAILED[activity], open_run if activity == "compaction" else None, {"error": error}


def ends_in_branch(
    activities: Sequence[Activity], open_run: str | None
) -> Iterator[tuple[type[DurableEvent], str | None, dict[str, Any]]]:
    """The events that end everything under way in a branch's parent: activities as failed, and the run as
    cancelled.
    """
    yield from ends_of(activities, open_run, ELSEWHERE)
    if open_run is not None:
        yield RunEnd, open_run, {"outcome": "cancelled", "error": _no_end("run", ELSEWHERE)}


def _no_end(what: str, why: str) -> Failure:
    return Failure.of(PodError(f"the {what} did not finish: {why}"))
