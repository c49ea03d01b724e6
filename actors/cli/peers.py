"""Who is connected to a private socket, and whether a person may answer there, or a program of a pod."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

from actors.runtime.children.ancestry import launcher_above

#: Of who is connected to a socket: its process, user and group.
_PEER = struct.Struct("3i")


def why_no_person(pid: int | None = None) -> str | None:
    """Why the process ``pid``, by default this one, may not answer for a person: a pod or an agent has
    started it, at whatever remove. None where it may.
    """
    launcher = launcher_above(pid)
    if launcher is None:
        return None
    return (
        "only a person may answer, at their own terminal: this command was started by a pod "
        f"(under process {launcher}, which starts programs for pods)"
    )


def why_no_person_at(connection: socket.socket) -> str | None:
    """Why who is connected to a private socket may not answer for a person. None where it may, and on a
    system that does not say who that is.
    """
    peer = _peer_of(connection)
    if peer is None:
        return None
    pid, _, _ = peer
    why = why_no_person(pid)
    if why is None and not Path(f"/proc/{pid}").exists():  # nobody can say any more whose it was
        return f"only a person may answer, and process {pid}, which sent the request, is gone"
    return why


def is_strangers(connection: socket.socket) -> bool:
    """Whether it is another user who listens there: False on a system that does not say who does."""
    peer = _peer_of(connection)
    return peer is not None and peer[1] != os.geteuid()


def _peer_of(connection: socket.socket) -> tuple[int, int, int] | None:
    """The process, user and group at the other end; None where the system does not say."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    pid, user, group = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return pid, user, group
