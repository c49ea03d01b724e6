"""polypod: an actor-model runtime for LLM agents. The public names, for programs that use it."""

import protocol as _protocol

if getattr(_protocol, "__polypod__", None) != "polypod":
    _where = getattr(_protocol, "__file__", None) or ", ".join(getattr(_protocol, "__path__", ["?"]))
    raise ImportError(
        f"polypod needs its own package 'protocol', but Python found another one first: {_where}. "
        "Rename or move that file, or install polypod where the distribution it belongs to is not."
    )

from actors.llm.base import (
    Block,
    CallChunk,
    CallEnd,
    CallStart,
    End,
    LLMClient,
    Request,
    TextChunk,
    ThinkingChunk,
    UsageReport,
)
from actors.llm.cassette import CassetteClient
from actors.llm.scripted import Reply, ScriptedClient, call, say
from actors.pod.handle import Pod, RunStream
from actors.runtime.actor import AsyncActor
from actors.runtime.bus import Closed, Subscription
from actors.runtime.future import AsyncFuture
from actors.sessions.store import MemoryStore, SessionInfo, SessionStore
from actors.system import PodSystem
from actors.tools.base import Tool, Toolbox, ToolContext, tool
from protocol import *  # noqa: F403 - every public protocol type, as protocol.__all__ lists them

__all__ = [
    "AsyncActor",
    "AsyncFuture",
    "Block",
    "CallChunk",
    "CallEnd",
    "CallStart",
    "CassetteClient",
    "Closed",
    "End",
    "LLMClient",
    "MemoryStore",
    "Pod",
    "PodSystem",
    "Reply",
    "Request",
    "RunStream",
    "ScriptedClient",
    "SessionInfo",
    "SessionStore",
    "Subscription",
    "TextChunk",
    "ThinkingChunk",
    "Tool",
    "ToolContext",
    "Toolbox",
    "UsageReport",
    "call",
    "say",
    "tool",
]
__all__ += _protocol.__all__
