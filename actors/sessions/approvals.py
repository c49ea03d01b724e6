"""Folds a session's log into the calls that wait for approval and the answers that people have
given; pure.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from protocol.approval import ApprovalRule
from protocol.events import ApprovalRequested, ApprovalResolved


class Granted(Struct, frozen=True):
    """A call that was approved and has not begun."""

    request: ApprovalRequested
    resolution: ApprovalResolved

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that it is to be run with."""
        mended = self.resolution.arguments
        return self.request.arguments if mended is None else mended


class Approvals(Struct, frozen=True):
    """The open requests, the calls that were approved and have not begun, and the rules that people have
    given.
    """

    open: tuple[ApprovalRequested, ...] = ()
    granted: tuple[Granted, ...] = ()
    rules: tuple[ApprovalRule, ...] = ()

    def after(self, event: ApprovalRequested | ApprovalResolved) -> Approvals:
        """The state after ``event``."""
        others = tuple(each for each in self.open if each.approval_id != event.approval_id)
        if isinstance(event, ApprovalRequested):
            # An approved call may be asked for again: with other arguments, or by its tool.
            granted = tuple(each for each in self.granted if each.request.call_id != event.call_id)
            return replace(self, open=(*others, event), granted=granted)
        granted, rules = self.granted, self.rules
        request = self.find(event.approval_id)
        if request is not None and event.approved and request.form is None:
            granted = (*granted, Granted(request, event))
        if event.rule is not None and event.rule not in rules:
            rules = (*rules, event.rule)
        return Approvals(others, granted, rules)

    def find(self, approval_id: str) -> ApprovalRequested | None:
        """The open request with that id."""
        return next((each for each in self.open if each.approval_id == approval_id), None)

    def begun(self) -> Approvals:
        """The state if calls that were approved may have begun."""
        return replace(self, granted=()) if self.granted else self


NO_APPROVALS = Approvals()
