"""``RemotePod``: what a system knows of a pod in another process, beside its address."""

from __future__ import annotations

import abc
from collections.abc import Iterable

from actors.runtime.future import AsyncFuture
from protocol.errors import Failure
from protocol.events import ApprovalRequested


class RemotePod(abc.ABC):
    """A pod of a system that has no actor in this process. Used on the system's loop only."""

    @property
    @abc.abstractmethod
    def pid(self) -> int | None:
        """The number of its process; None while there is none."""

    @abc.abstractmethod
    def shut_down(self) -> AsyncFuture[bool]:
        """End the pod with its run paused: a future of whether it was alive."""

    @abc.abstractmethod
    def why_ended(self) -> AsyncFuture[Failure | None]:
        """A future that resolves once the pod has ended for good, with why; with None if it was asked to."""

    @abc.abstractmethod
    def durable_position(self) -> tuple[str, int] | None:
        """Its session, and the last durable entry known here; None while it is being started."""

    @abc.abstractmethod
    def open_approvals(self) -> Iterable[ApprovalRequested]:
        """Its calls that wait for a person's approval."""

    @abc.abstractmethod
    def has_asked(self, approval_id: str) -> bool:
        """Whether one of its calls waits, or has waited, for an approval of that id."""
