"""``Lease``: what a pod in a process of its own may use of its system's budget, and what it has used."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import msgspec

from actors.pod.accounts.budget import Budget, ChildBudget, Exceeded, Reservation, Resource, Totals
from protocol.errors import BudgetError
from protocol.manifest import BudgetSection
from protocol.pod_process import SOCKET, Count, Draw, Granted, Hold, Spend, ToParent, to_parent
from protocol.wire import encode

_READ = 65536
#: A lease is topped up by so many times what was asked for, and by at most such a part of what is left.
_AHEAD, _PART = 4, 8


class Lease:
    """The parent's end of the socket by which a process accounts for what its calls take.

    What was granted is set aside in the system's budget; at the end what was not spent is given back. What
    was held for calls under way when the process died counts as spent, since they may have been answered.
    """

    def __init__(self, end: socket.socket, budget: Budget | None, totals: Totals) -> None:
        end.setblocking(False)
        self._end = end
        self._root, self._totals = budget, totals
        self._node = None if budget is None else ChildBudget(_granted(0, 0.0, budget), budget)
        #: What is held for calls under way.
        self._held = Hold(0, 0.0, 0)
        self._unread = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(end.fileno(), self.read)

    def send_socket(self, other: socket.socket) -> None:
        """Hand the process one end of another socket, before it is answered anything."""
        socket.send_fds(self._end, [SOCKET], [other.fileno()])

    def read(self) -> None:
        """Take what has come."""
        if self._end.fileno() < 0:
            return
        try:
            while data := self._end.recv(_READ):
                *lines, self._unread = (self._unread + data).split(b"\n")
                for line in lines:
                    self._take(to_parent.decode(line))
        except BlockingIOError:
            return
        except (OSError, msgspec.DecodeError, BudgetError):  # what says this is not a lease's other end
            pass
        self._loop.remove_reader(self._end.fileno())

    def close(self) -> None:
        """Count what the process had under way when it ended, and give back the rest."""
        self.read()
        if self._end.fileno() < 0:
            return
        self._loop.remove_reader(self._end.fileno())
        self._end.close()
        if self._node is not None:
            tokens, cost, calls = self._held.tokens, self._held.cost, self._held.calls
            if calls:
                self._node.hold(-tokens, -cost, -calls)
                self._node.spend(tokens, cost, estimated=True)
            self._node.close()

    def _take(self, message: ToParent) -> None:
        node = self._node
        if isinstance(message, Count):
            self._totals.count(message.usage, message.cost)
        elif node is None:
            raise BudgetError("there is no budget to draw from")
        elif isinstance(message, Hold):
            held = self._held
            self._held = Hold(
                held.tokens + message.tokens, held.cost + message.cost, held.calls + message.calls
            )
            node.hold(message.tokens, message.cost, message.calls)
        elif isinstance(message, Spend):
            node.spend(message.tokens, message.cost, estimated=message.estimated)
            if message.seconds:
                node.spend_seconds(message.seconds)
        else:
            self._answer(self._grant(node, message))

    def _grant(self, node: ChildBudget, draw: Draw) -> Granted:
        root = self._root
        assert root is not None
        perhaps = None if draw.perhaps is None else Reservation(*draw.perhaps)
        exceeded = root.exceeded(draw.tokens, draw.cost, perhaps=perhaps, timed=draw.timed)
        left = root.seconds_left()
        if exceeded is not None:
            return Granted(seconds_left=left, exceeded=_plain(exceeded))
        tokens, cost = draw.tokens, draw.cost
        if root.limits.tokens is not None:
            tokens = max(tokens, min(_AHEAD * tokens, (root.limits.tokens - root.tokens) // _PART))
        if root.limits.cost_usd is not None:
            cost = max(cost, min(_AHEAD * cost, (root.limits.cost_usd - root.cost) / _PART))
        node.limits = _granted((node.limits.tokens or 0) + tokens, (node.limits.cost_usd or 0.0) + cost, root)
        return Granted(tokens, cost, left)

    def _answer(self, granted: Granted) -> None:
        with contextlib.suppress(OSError):  # it has ended, or asks for more than it reads
            self._end.send(encode(granted) + b"\n")


def _granted(tokens: int, cost: float, root: Budget) -> BudgetSection:
    """What is set aside; of what nobody limits nothing is."""
    return BudgetSection(
        tokens=None if root.limits.tokens is None else tokens,
        cost_usd=None if root.limits.cost_usd is None else cost,
    )


def _plain(exceeded: Exceeded) -> tuple[Resource, float, float, float]:
    return exceeded.budget, exceeded.limit, exceeded.used, exceeded.reserved
