"""Socket pairs and a module search path for processes that we start, independent of the program's
settings.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path
from typing import cast


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected blocking sockets, even if the program has set ``socket.setdefaulttimeout``: with a
    default time-out the other process would get a non-blocking one.
    """
    near, far = socket.socketpair()
    near.settimeout(None)
    far.settimeout(None)
    return near, far


def search_path() -> list[str]:
    """The module search path for a process that starts in another folder, without entries that are not
    strings, which Python ignores.
    """
    named = [Path(each) for each in cast("list[object]", sys.path) if isinstance(each, str)]
    with contextlib.suppress(FileNotFoundError):
        return [str(each.absolute()) for each in named]
    # The working directory is gone, so relative entries find nothing.
    return [str(each) for each in named if each.is_absolute()]
