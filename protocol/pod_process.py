"""What a process that is one pod gets at its start and answers, and what it says of its budget."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from protocol.events import ApprovalRequested
from protocol.manifest import BudgetSection, PodManifest
from protocol.usage import Usage

#: The id of a process's start in ``protocol.channel``, and of the events that it sends unasked.
OWN = 0


class BeginPod(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """To the process: be this pod. Clients, tools and hooks by where they are imported from; ``environment``
    is what of its parent's it has besides what it was started with. Answered by a ``Reply`` with ``PodBegun``
    or a ``Refusal``, of the id ``OWN``.
    """

    manifest: PodManifest
    name: str
    store: str
    folder: bytes
    resume: str | None = None
    exact: bool = False
    session: str | None = None
    client: str | None = None
    tools: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    environment: tuple[tuple[bytes, bytes], ...] = ()
    #: What all pods of the parent's system share; this process draws on it by its ``Draw``s.
    budget: BudgetSection | None = None
    on_conflict: Literal["fork", "refuse"] = "fork"
    outputs: str | None = None
    memory: str | None = None
    #: A table of prices, in place of the one that polypod has.
    prices: Raw | None = None
    passivate_after: float | None = None
    graces: dict[str, float] = {}
    processes: int | None = None
    tool_threads: int | None = None


class PodBegun(Struct, frozen=True):
    """From the process: the pod takes commands. Where it stands, whether its run is paused, and the calls
    that wait for a person's word.
    """

    session_id: str
    seq: int
    paused: bool = False
    approvals: tuple[ApprovalRequested, ...] = ()


#: What a process is sent with the socket of ``protocol.shared_servers``, before anything else of its budget.
SOCKET = b"+"

# -- budgets, a line of JSON each --------------------------------------------------------------------


class Hold(Struct, frozen=True, tag="hold", array_like=True):
    """To the parent: so much more is held back for calls under way (less, where it is negative)."""

    tokens: int
    cost: float
    calls: int


class Spend(Struct, frozen=True, tag="spend", array_like=True):
    """To the parent: a call was settled, or a run took so many seconds."""

    tokens: int = 0
    cost: float = 0.0
    estimated: bool = False
    seconds: float = 0.0


class Count(Struct, frozen=True, tag="count", array_like=True):
    """To the parent: a call took so much, as far as it is known."""

    usage: Usage | None
    cost: float | None


class Draw(Struct, frozen=True, tag="draw", array_like=True):
    """To the parent: may so much more be used up, and ``perhaps`` more beside other calls under way? It is
    answered by a ``Granted``.
    """

    tokens: int = 0
    cost: float = 0.0
    perhaps: tuple[int, float] | None = None
    timed: bool = True


class Granted(Struct, frozen=True):
    """To the process: what was added to its lease, what is left of the time of all runs, or which limit
    would not hold: its resource, its value, what is used, and what is held back with what was asked for.
    """

    tokens: int = 0
    cost: float = 0.0
    seconds_left: float | None = None
    exceeded: tuple[Literal["tokens", "cost_usd", "seconds"], float, float, float] | None = None


ToParent = Hold | Spend | Count | Draw
#: Decode what the other end of a budget's socket says.
to_parent: msgspec.json.Decoder[ToParent] = msgspec.json.Decoder(ToParent)
granted: msgspec.json.Decoder[Granted] = msgspec.json.Decoder(Granted)
pod_begun: msgspec.json.Decoder[PodBegun] = msgspec.json.Decoder(PodBegun)
begin_pod: msgspec.json.Decoder[Any] = msgspec.json.Decoder(BeginPod)
