"""Sockets and a module search path for processes that we start, whatever the program has set."""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path
from typing import cast


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets that wait, also in a program with a ``socket.setdefaulttimeout``: by that the
    other process would have one that never waits.
    """
    near, far = socket.socketpair()
    near.settimeout(None)
    far.settimeout(None)
    return near, far


def search_path() -> list[str]:
    """Where modules are looked for, for a process that begins in another folder; without what is not text,
    which Python passes over.
    """
    named = [Path(each) for each in cast("list[object]", sys.path) if isinstance(each, str)]
    with contextlib.suppress(FileNotFoundError):
        return [str(each.absolute()) for each in named]
    # The working directory is gone, and nothing is found by what is seen from there.
    return [str(each) for each in named if each.is_absolute()]
