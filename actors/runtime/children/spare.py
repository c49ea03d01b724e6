"""``SpareWardens``: keeps wardens whose confined child has ended, for the next confined child.

Making a warden and its namespaces costs as much as the confined child itself. A warden is kept only if its
child has left nothing: no process, no limit of processes, and no request to end that may still be under way.
"""

from __future__ import annotations

import contextlib
import socket

from msgspec import Struct

from actors.runtime.children.descendants import Process, find_process

#: How many are kept.
_MOST = 2


class Connection(Struct, eq=False):
    """The socket to a warden, and the warden's process, None until the warden has reported it.

    ``held`` is how many descriptors its launcher had been given to hold when the warden was made.
    """

    control: socket.socket
    held: int
    warden: Process | None = None


class SpareWardens:
    """Wardens without a child. Thread-safe."""

    def __init__(self) -> None:
        self._idle: list[Connection] = []
        self._closed = False
        #: How many descriptors the launcher has been given to hold.
        self.held = 0

    def take(self) -> Connection | None:
        """Take out a living warden; None if there is none."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread has taken it
                break
            warden = connection.warden
            if connection.held == self.held and warden is not None and find_process(warden.pid) == warden:
                return connection
            connection.control.close()
        return None

    def keep(self, connection: Connection) -> None:
        """Keep a warden for the next child; the surplus one ends."""
        if self._closed or len(self._idle) >= _MOST:
            connection.control.close()
            return
        self._idle.append(connection)
        if self._closed:  # closed by another thread meanwhile
            self._let_go()

    def outdate(self) -> None:
        """Drop all wardens, including those in use now once they are free: new ones hold one more
        descriptor.
        """
        self.held += 1
        self._let_go()

    def close(self) -> None:
        """Drop all wardens, and keep none any more."""
        self._closed = True
        self._let_go()

    def _let_go(self) -> None:
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread has taken it
                self._idle.pop().control.close()
