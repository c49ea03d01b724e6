"""A port that has to stay unused is taken from one place, which keeps it."""

import socket
from pathlib import Path

import pytest
from ports import unused_port

ROOT = Path(__file__).parents[1]


def test_an_unused_port_refuses_connections_and_can_be_listened_on_by_its_number() -> None:
    port = unused_port()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    with pytest.raises(OSError, match="in use"), socket.socket() as other:
        other.bind(("127.0.0.1", port))
    with socket.create_server(("127.0.0.1", port)):
        socket.create_connection(("127.0.0.1", port)).close()


def test_no_other_place_binds_a_port_that_it_may_let_go_of() -> None:
    modules = (path for folder in ("tests", "bench") for path in (ROOT / folder).rglob("*.py"))
    binding = {path.relative_to(ROOT).as_posix() for path in modules if ".bind((" in path.read_text("utf-8")}
    assert binding == {"tests/ports.py", "tests/test_ports.py"}
