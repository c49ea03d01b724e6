"""``KnownEvents``: which events of a program that was found again were recorded before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from actors.swarm.agents.kept_programs import is_of_errors
from protocol.events import AgentIdle, AgentStarted, AgentStopped, Event


class KnownEvents:
    """Counts what a program's output gives once more, since it is read from behind what is recorded of it."""

    __slots__ = ("_left", "_start_is_known")

    def __init__(self, recorded: Iterable[object] = (), *, was_up: bool = False) -> None:
        """``recorded`` are the events behind the place that its output is read from; ``was_up`` says that its
        start is recorded.
        """
        #: So many are passed over of its output, and of its standard error.
        self._left = Counter(map(is_of_errors, recorded))
        self._start_is_known = was_up

    def pass_over(self, event: Event, *, is_ready: bool) -> bool:
        """Take the next event of the program; returns whether it is recorded already. ``is_ready`` says that
        it is recorded as one that waits for words.
        """
        if isinstance(event, AgentStarted) and self._start_is_known:
            self._start_is_known = False
            return True
        if isinstance(event, AgentIdle) and is_ready:
            return True
        of_errors = is_of_errors(event)
        if self._left[of_errors] and not isinstance(event, AgentStopped):
            self._left[of_errors] -= 1
            return True
        return False
