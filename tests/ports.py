"""Ports on which nothing listens, and which nobody else is given."""

import socket


def unused_port() -> int:
    """A port of this host that refuses connections, for as long as this process lives.

    A socket stays bound to it and never listens. A port that is let go of is given to whoever asks for one next,
    and that may be a server of another test worker. Only who names this port and has it reused may listen on it.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.setsockopt(
        socket.SOL_SOCKET, socket.SO_REUSEPORT, 1
    )  # some servers ask for the one, some for the other
    held.bind(("127.0.0.1", 0))
    port: int = held.getsockname()[1]
    held.detach()
    return port
