"""``SpareWardens``: wardens whose confined child has ended, kept for the next one.

To make one, and the namespaces that it has for its child, costs as much as a confined child does. One is kept
only where its child has left nothing: no process, no bound of how many there may be, and no request to end
that may still be under way.
"""

from __future__ import annotations

import contextlib
import socket

from msgspec import Struct

from actors.runtime.children.descendants import Process, find_process

#: How many are kept.
_MOST = 2


class Connection(Struct, eq=False):
    """The socket to a warden, and which process that is, None until it has said so.

    It holds what its launcher had been given to hold by then, which ``held`` counts.
    """

    control: socket.socket
    held: int
    warden: Process | None = None


class SpareWardens:
    """Wardens without a child. Used on any thread."""

    def __init__(self) -> None:
        self._idle: list[Connection] = []
        self._closed = False
        #: How often a launcher was given something to hold.
        self.held = 0

    def take(self) -> Connection | None:
        """Take out a warden that lives; None where there is none."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread has it
                break
            warden = connection.warden
            if connection.held == self.held and warden is not None and find_process(warden.pid) == warden:
                return connection
            connection.control.close()
        return None

    def keep(self, connection: Connection) -> None:
        """Keep a warden for the next child; one too many ends."""
        if self._closed or len(self._idle) >= _MOST:
            connection.control.close()
            return
        self._idle.append(connection)
        if self._closed:  # by another thread meanwhile
            self._let_go()

    def outdate(self) -> None:
        """Let go of the wardens that there are, and of those at work later: new ones hold something more."""
        self.held += 1
        self._let_go()

    def close(self) -> None:
        """Let go of all, and keep none any more."""
        self._closed = True
        self._let_go()

    def _let_go(self) -> None:
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread has it
                self._idle.pop().control.close()
