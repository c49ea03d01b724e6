"""``LeasedBudget``: a pod's part of the budget that its parent process keeps, asked for by a socket."""

from __future__ import annotations

import contextlib
import os
import socket

import msgspec

from actors.pod.accounts.budget import Budget, Exceeded, Reservation, Totals
from protocol.errors import BudgetError
from protocol.manifest import BudgetSection
from protocol.pod_process import SOCKET, Count, Draw, Granted, Hold, Spend, ToParent, granted
from protocol.usage import Usage
from protocol.wire import encode

#: Seconds that the parent's loop has to answer; it answers in its turn, and works on nothing for so long.
_PATIENCE = 60.0


class ParentAccounts:
    """The socket to the parent, by which it knows at once what is spent, also of a process that is killed."""

    def __init__(self, end: socket.socket) -> None:
        end.settimeout(_PATIENCE)
        self._end = end
        self._unread = b""

    def receive_socket(self) -> socket.socket:
        """The socket that the parent sends before anything else. Raises OSError."""
        data, numbers, _, _ = socket.recv_fds(self._end, len(SOCKET), 1)
        if data != SOCKET or not numbers:
            raise OSError("the parent process sent no socket")
        os.set_inheritable(numbers[0], False)
        return socket.socket(fileno=numbers[0])

    def report(self, message: ToParent) -> None:
        """Say something that nobody answers."""
        with contextlib.suppress(OSError):  # the parent is gone, and so is this process in a moment
            self._end.sendall(encode(message) + b"\n")

    def draw(self, asked: Draw) -> Granted:
        """Ask for more; waits for the answer. Raises BudgetError where none comes."""
        try:
            self._end.sendall(encode(asked) + b"\n")
            while b"\n" not in self._unread:
                if not (data := self._end.recv(4096)):
                    raise BudgetError("the parent process, which manages the budget, is gone")
                self._unread += data
            line, _, self._unread = self._unread.partition(b"\n")
            return granted.decode(line)
        except (OSError, msgspec.DecodeError) as error:
            raise BudgetError(
                f"the parent process, which manages the budget, does not answer: {error}"
            ) from error


class LeasedBudget(Budget):
    """The root of this process's budgets. Its limits are those of the parent's system; it asks for more
    where what it was granted does not suffice.
    """

    __slots__ = ("_accounts", "_granted_cost", "_granted_tokens")

    def __init__(self, limits: BudgetSection, accounts: ParentAccounts) -> None:
        super().__init__(limits)
        self._accounts = accounts
        self._granted_tokens, self._granted_cost = 0, 0.0

    def exceeded(
        self,
        tokens: int = 0,
        cost: float = 0.0,
        *,
        perhaps: Reservation | None = None,
        timed: bool = True,
    ) -> Exceeded | None:
        more_tokens = self.spent_tokens + self.reserved_tokens + tokens - self._granted_tokens
        more_cost = self.spent_cost + self.reserved_cost + cost - self._granted_cost
        timed = timed and self.limits.seconds is not None
        short = (self.limits.tokens is not None and more_tokens > 0) or (
            self.limits.cost_usd is not None and more_cost > 0
        )
        if not short and not timed and perhaps is None:
            return None
        ahead = None if perhaps is None else (perhaps.tokens, perhaps.cost)
        answer = self._accounts.draw(Draw(max(0, more_tokens), max(0.0, more_cost), ahead, timed))
        if answer.exceeded is not None:
            return Exceeded(*answer.exceeded)
        self._granted_tokens += answer.tokens
        self._granted_cost += answer.cost
        return None

    def seconds_left(self) -> float | None:
        if self.limits.seconds is None:
            return None
        return self._accounts.draw(Draw(timed=False)).seconds_left

    def spend_seconds(self, seconds: float) -> None:
        super().spend_seconds(seconds)
        self._accounts.report(Spend(seconds=seconds))

    def hold(self, tokens: int, cost: float, calls: int) -> None:
        super().hold(tokens, cost, calls)
        self._accounts.report(Hold(tokens, cost, calls))

    def spend(self, tokens: int, cost: float, estimated: bool) -> None:
        super().spend(tokens, cost, estimated)
        self._accounts.report(Spend(tokens, cost, estimated))


class ReportedTotals(Totals):
    """What the pods of this process have consumed, which the parent's system counts as well."""

    __slots__ = ("_accounts",)

    def __init__(self, accounts: ParentAccounts) -> None:
        super().__init__()
        self._accounts = accounts

    def count(self, usage: Usage | None, cost: float | None) -> None:
        super().count(usage, cost)
        self._accounts.report(Count(usage, cost))
