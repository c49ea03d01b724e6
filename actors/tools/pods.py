"""The tools by which a model has sub-agents: pods of its own that it gives work to."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated, Any, Protocol

from msgspec import Meta, Struct

from actors.tools.base import Tool, ToolContext, tool
from actors.tools.extras import PODS
from protocol.errors import ToolError
from protocol.manifest import BudgetSection
from protocol.scope import Rule

Name = Annotated[str, Meta(description="the sub-agent's name")]
#: The longest that a look at a sub-agent may wait, in seconds.
MOST_WAIT = 600


class ScopeAsked(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a sub-agent is to be allowed: rules that allow, and rules that deny something of that. A target
    is a path; the permission is read or write; not recursive means what lies directly in it.
    """

    allow: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()


class Asked(Struct, frozen=True):
    """A sub-agent that is asked for."""

    name: str
    instruction: str
    task: str
    scope: ScopeAsked | None = None
    model: str | None = None
    budget: BudgetSection | None = None


class SubAgents(Protocol):
    """The sub-agents of one pod. Each raises ToolError, whose words are for the model."""

    def spawn(self, asked: Asked) -> Awaitable[dict[str, Any]]: ...
    def send(self, name: str, text: str) -> Awaitable[str]: ...
    def read(self, name: str, after: int, wait: float) -> Awaitable[dict[str, Any]]: ...
    def stop(self, name: str) -> Awaitable[str]: ...
    def list(self) -> Awaitable[list[dict[str, Any]]]: ...


@tool
async def spawn_pod(
    name: Annotated[str, Meta(description="its name: letters, digits, '-' and '_'")],
    instruction: Annotated[str, Meta(description="its system prompt: its role and how to work")],
    task: Annotated[str, Meta(min_length=1, description="what to do now; it does not see this conversation")],
    scope: ScopeAsked | None = None,
    model: Annotated[
        str | None, Meta(description="the id of another model on the same server; default: yours")
    ] = None,
    budget: BudgetSection | None = None,
    *,
    ctx: ToolContext,
) -> dict[str, Any]:
    """Give a task to a sub-agent, which works on its own, with your tools. When it has ended, you get a
    message with its last answer. Without a scope it may touch no files. What you let it write you may not
    write yourself until it has ended. What goes beyond your own scope or budget is refused.
    """
    return await _sub_agents(ctx).spawn(Asked(name, instruction, task, scope, model, budget))


@tool
async def send_to_pod(
    name: Name,
    text: Annotated[
        str, Meta(min_length=1, description="the message, which it receives as if from its user")
    ],
    ctx: ToolContext,
) -> str:
    """Send words to a sub-agent that is at work; it reads them before its next step."""
    return await _sub_agents(ctx).send(name, text)


@tool(concurrency="read_only")
async def read_pod_output(
    name: Name,
    after: Annotated[
        int, Meta(ge=0, description="the value of `next` from the last call; 0 for everything")
    ] = 0,
    wait: Annotated[
        float, Meta(ge=0, le=MOST_WAIT, description="seconds to wait if there is nothing new")
    ] = 0,
    *,
    ctx: ToolContext,
) -> dict[str, Any]:
    """Read what a sub-agent has said since the last look, and how it is doing."""
    return await _sub_agents(ctx).read(name, after, wait)


@tool
async def stop_pod(name: Name, ctx: ToolContext) -> str:
    """Stop a sub-agent and its own; what it was given is yours again."""
    return await _sub_agents(ctx).stop(name)


@tool(concurrency="read_only")
async def list_pods(ctx: ToolContext) -> list[dict[str, Any]]:
    """List your sub-agents, those at work and those that have ended."""
    return await _sub_agents(ctx).list()


POD_TOOLS: tuple[Tool, ...] = (spawn_pod, send_to_pod, read_pod_output, stop_pod, list_pods)


def _sub_agents(ctx: ToolContext) -> SubAgents:
    found: Any = ctx.extras.get(PODS)
    sub_agents: SubAgents | None = None if found is None else found(ctx.pod)
    if sub_agents is None:
        raise ToolError("this pod cannot have sub-agents")
    return sub_agents
