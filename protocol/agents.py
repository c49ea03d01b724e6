"""Agents: what an agent was asked to be, its state, and how its task ended."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Raw, Struct

from protocol.errors import Failure
from protocol.manifest import RestartSection
from protocol.usage import Usage

#: How an agent stands: its program is not up yet (``pending``), it has a task (``running``), waits for a
#: person (``waiting``) or for a task (``idle``); it has ended by itself, well (``done``) or not (``failed``),
#: or was ended (``killed``); or nobody has recorded its end (``detached``).
AgentStatus = Literal["pending", "running", "waiting", "idle", "done", "failed", "killed", "detached"]
#: An agent of such a status has a program, or is about to.
LIVING: frozenset[AgentStatus] = frozenset({"pending", "running", "waiting", "idle"})
#: An agent of such a status has ended.
ENDED: frozenset[AgentStatus] = frozenset({"done", "failed", "killed"})


def stands(status: AgentStatus) -> str:
    """How an agent of that status stands, in words that follow its id: ``is idle``, ``has failed``."""
    return {"failed": "has failed", "killed": "was killed"}.get(status, f"is {status}")


class AgentSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an agent was asked to be; kept in its session's first entry, never changed.

    ``runner`` is the name of a runner, or the command of a program; ``root`` the folder of its swarm. With
    ``keep`` its program may outlive the process that started it. ``has_objects`` says that it was given
    objects of that process (a client, tools, a function), so no other process can start it again by itself.
    ``starter`` is the session of the pod whose model started it, None if a program or a person did.
    """

    id: str
    task: str
    runner: str | tuple[str, ...]
    cwd: str
    root: str
    created_at: float
    model: str | None = None
    provider: str | None = None
    keep: bool = False
    has_objects: bool = False
    restart: RestartSection = RestartSection()
    starter: str | None = None


class AgentResult(Struct, frozen=True, kw_only=True):
    """How an agent's task ended: ``done``, ``failed`` or ``killed`` (it was cancelled, or its agent was
    stopped).

    ``text`` is its last answer; ``usage``, ``cost`` (US dollars) and ``seconds`` are what the task used up,
    None where unknown.
    """

    status: AgentStatus
    text: str = ""
    usage: Usage | None = None
    cost: float | None = None
    seconds: float | None = None
    error: Failure | None = None


class _Opening(Struct, frozen=True):
    agent: AgentSpec


_openings = msgspec.json.Decoder(_Opening)


def opening_of(spec: AgentSpec) -> Raw:
    """What the first entry of an agent's session holds in place of a manifest."""
    return Raw(msgspec.json.encode(_Opening(spec)))


def spec_of(manifest: Raw) -> AgentSpec | None:
    """The agent described by the first entry of its session; None if the session is a pod's."""
    try:
        return _openings.decode(manifest).agent
    except msgspec.DecodeError:
        return None
