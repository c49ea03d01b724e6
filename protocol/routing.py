"""Routing: which agent and model a task should go to, and what is known when that is decided."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from protocol.foreign import shown
from protocol.usage import Usage

#: Who does the work of a tier: a model of ours, a sub-agent in a cloud, or an agent that a vendor runs.
Tier = Literal["local", "subagent", "managed"]
#: What came of a tier: its answer is the chain's, or it was rejected, or there was none.
AttemptVerdict = Literal["accept", "escalate", "error"]


class SystemStatus(Struct, frozen=True, kw_only=True):
    """What is at work now: how many tasks each agent has (``active_tasks``), and until when one is limited
    by its provider (``rate_limited``, seconds since the epoch). An empty one is legal.
    """

    active_tasks: dict[str, int] = {}
    rate_limited: dict[str, float] = {}


class Classification(Struct, frozen=True):
    """Which agent and model a task should go to, and why; an empty ``model`` is the agent's own."""

    agent_type: str
    model: str = ""
    reason: str = ""


class ChainEntry(Struct, frozen=True):
    """One tier of a chain: the model that is asked, and whether it is one in a cloud, whose answer is not
    verified. ``timeout`` is how many seconds it has to answer (None: as long as the request has).
    """

    model: str
    tier: Tier = "local"
    is_cloud: bool = False
    timeout: float | None = None


def entry_for(model: str) -> ChainEntry:
    """The tier of a model by its name: ``claude-…`` and ``anthropic/claude-…`` are in a cloud, all others
    local, ``ollama/claude-…`` too. ``managed`` is never derived from a name. Raises TypeError.
    """
    if not isinstance(model, str):
        raise TypeError(f"model: expected a name, got {shown(model)}")
    in_cloud = model.removeprefix("anthropic/").startswith("claude-")
    return ChainEntry(model, "subagent" if in_cloud else "local", in_cloud)


class ChainRequest(Struct, frozen=True):
    """A task as a chain, or whoever stands in one, gets it: ``skill_prompt`` says how such tasks are done,
    ``model`` is whose turn it is (empty: whoever is asked chooses).
    """

    task_prompt: str
    skill_prompt: str = ""
    model: str = ""


class Verdict(Struct, frozen=True):
    """What a verifier says of an output; ``feedback`` is for the tiers that follow. ``usage`` and ``cost``
    (US dollars) are what its own calls of a model took, None where it made none or nobody knows.
    """

    accept: bool
    feedback: str = ""
    usage: Usage | None = None
    cost: float | None = None


class AttemptRecord(Struct, frozen=True, omit_defaults=True):
    """What came of one tier.

    ``duration_ms`` has the verification in it. ``warm_start`` says whether the model was loaded when it was
    asked. ``feedback`` is the verifier's, or why there was no answer. ``usage`` and ``cost`` (US dollars)
    are what the tier's own calls took in the request that ended it, None where nobody knows.
    """

    model: str
    tier: Tier
    duration_ms: int
    warm_start: bool
    verdict: AttemptVerdict
    feedback: str = ""
    usage: Usage | None = None
    cost: float | None = None


class ChainResult(Struct, frozen=True):
    """What a chain gives: the accepted text, the model whose it is, and what came of each tier. ``usage`` and
    ``cost`` (US dollars) are what all calls took, of verifiers and rejected tiers too.
    """

    text: str
    model: str
    usage: Usage | None = None
    cost: float | None = None
    attempts: tuple[AttemptRecord, ...] = ()
