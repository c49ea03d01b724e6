"""What commands ask the service of a swarm, and what it answers: JSON lines on a private socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from actors.cli.swarm.rows import Row
from actors.swarm.agents.inboxes import socket_path
from protocol.errors import Failure
from protocol.manifest import PodManifest, RestartSection


class Asked(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One question; a connection has one. ``do`` says what, ``id`` begins the id of the agent meant."""

    do: str
    id: str = ""
    text: str = ""
    runner: str | tuple[str, ...] = "pod"
    name: str | None = None
    cwd: str = ""
    model: str | None = None
    provider: str | None = None
    keep: bool = False
    restart: RestartSection | None = None
    manifest: PodManifest | None = None
    since: int = 0
    follow: bool = False
    always: bool = False
    note: str | None = None
    #: The store that the agents are to be kept in, where somebody said so.
    store: str = ""


class Said(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of an answer: an event, as JSON, or its last: what was asked for, or why it failed."""

    event: str = ""
    done: bool = False
    rows: tuple[Row, ...] = ()
    problems: tuple[str, ...] = ()
    store: str = ""
    pid: int = 0
    version: str = ""
    #: Digests of the variables that agents have, by name.
    environment: dict[str, str] = {}
    error: Failure | None = None


#: Bytes that a line may have.
LONGEST = 1 << 26

decode_asked = msgspec.json.Decoder(Asked).decode
decode_said = msgspec.json.Decoder(Said).decode


def socket_of(root: Path) -> Path:
    """Where the service of a folder listens."""
    return socket_path("s", str(root))


def lock_of(root: Path) -> Path:
    """The file that the service of a folder holds while it lives; it says where that listens."""
    return root / "serve.lock"


def line_of(value: Any) -> bytes:
    """One line."""
    return msgspec.json.encode(value) + b"\n"
