"""Delegation: which sub-agents a pod has, folded from its log; pure."""

from __future__ import annotations

from msgspec import Struct, field
from msgspec.structs import replace

from protocol.events import ChildEnded, ChildStarted
from protocol.usage import Usage

#: Ended sub-agents that are remembered.
MOST_ENDED = 16


class Children(Struct, frozen=True, omit_defaults=True):
    """The sub-agents of a pod, as its log has them.

    ``open`` have not ended; ``ended`` are the last that have, and ``unreported`` those whose end the pod's
    model may not know of. ``usage``, ``cost`` and ``seconds`` are what all ended ones used up.
    """

    open: tuple[ChildStarted, ...] = ()
    ended: tuple[ChildEnded, ...] = ()
    unreported: tuple[ChildEnded, ...] = field(default=(), name="untold")
    usage: Usage | None = None
    cost: float | None = None
    seconds: float = 0.0

    def after(self, event: ChildStarted | ChildEnded) -> Children:
        """The state after ``event``."""
        others = tuple(each for each in self.open if each.child_session != event.child_session)
        if isinstance(event, ChildStarted):
            return replace(self, open=(*others, event))
        return Children(
            others,
            (*self.ended, event)[-MOST_ENDED:],
            (*self.unreported, event),
            usage_sum(self.usage, event.usage),
            cost_sum(self.cost, event.cost),
            self.seconds + (event.seconds or 0.0),
        )

    def reported(self, child_session: str) -> Children:
        """The state once the model knows of that sub-agent's end."""
        return replace(
            self, unreported=tuple(each for each in self.unreported if each.child_session != child_session)
        )


NO_CHILDREN = Children()


def usage_sum(one: Usage | None, other: Usage | None) -> Usage | None:
    """The sum of both; None if neither is known."""
    return other if one is None else one if other is None else one + other


def cost_sum(one: float | None, other: float | None) -> float | None:
    """The sum of both; None if neither is known."""
    return other if one is None else one if other is None else one + other
