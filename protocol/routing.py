"""Routing: which agent and model a task should go to, and what is known when that is decided."""

from __future__ import annotations

from msgspec import Struct


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
