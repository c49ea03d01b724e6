"""Decides whether a pod's request to its model hangs, by how much of the answer has arrived; pure."""

from __future__ import annotations

from typing import NamedTuple

#: Looks in a row that have to find nothing new before a request has hung; ``idle_seconds`` apart in all.
LOOKS = 4

#: A request, its attempt, and how much came of that; None where none is under way.
Progress = tuple[object, int, int] | None


class Watch(NamedTuple):
    """What the last look at a request saw, and how many looks in a row have seen the same."""

    seen: Progress = None
    still: int = 0

    @property
    def hangs(self) -> bool:
        """Whether nothing came for too long."""
        return self.still >= LOOKS


def look_again(watch: Watch, progress: Progress, *, bounded: bool) -> Watch:
    """The watch after another look. ``bounded`` is whether the client itself limits the wait for a first
    byte, which then does not count.
    """
    if progress is None or progress != watch.seen or (bounded and progress[2] == 0):
        return Watch(progress)
    return Watch(progress, watch.still + 1)
