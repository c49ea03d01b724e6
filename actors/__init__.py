"""polypod: an actor-model runtime for LLM agents. The public names, for programs that use it."""

import sys as _sys
from importlib import import_module as _import_module
from importlib.util import find_spec as _find_spec
from pathlib import Path as _Path
from typing import TYPE_CHECKING as _TYPE_CHECKING

# As ``polypod`` does it, which cannot be imported from here: looked for before any code of it is run.
_found = _sys.modules.get("protocol") or _find_spec("protocol")
_file: str = getattr(_found, "__file__", None) or getattr(_found, "origin", None) or ""
_beside_us = _file != "" and _Path(_file).resolve().parents[1] == _Path(__file__).resolve().parents[1]
if not _beside_us or getattr(_import_module("protocol"), "__polypod__", None) != "polypod":
    _places = getattr(_found, "__path__", None) or getattr(_found, "submodule_search_locations", None)
    raise ImportError(
        "polypod needs its own package 'protocol', and Python finds another one first: "
        f"{_file or next(iter(_places or ()), None)}. Rename or move that file or folder, or, if it belongs "
        "to another distribution, install polypod in an environment without that one."
    )

from actors.runtime.on_demand import on_demand as _on_demand
from protocol import *

if _TYPE_CHECKING:
    from actors.config.configuration import Configuration as Configuration
    from actors.llm.base import Block as Block
    from actors.llm.base import CallChunk as CallChunk
    from actors.llm.base import CallEnd as CallEnd
    from actors.llm.base import CallStart as CallStart
    from actors.llm.base import End as End
    from actors.llm.base import LLMClient as LLMClient
    from actors.llm.base import Request as Request
    from actors.llm.base import TextChunk as TextChunk
    from actors.llm.base import ThinkingChunk as ThinkingChunk
    from actors.llm.base import TierEnded as TierEnded
    from actors.llm.base import TierStarted as TierStarted
    from actors.llm.base import UsageReport as UsageReport
    from actors.llm.cassette import CassetteClient as CassetteClient
    from actors.llm.scripted import Reply as Reply
    from actors.llm.scripted import ScriptedClient as ScriptedClient
    from actors.llm.scripted import call as call
    from actors.llm.scripted import say as say
    from actors.pod.handle import Pod as Pod
    from actors.pod.run_stream import RunStream as RunStream
    from actors.pod.runs.options import ResumeOptions as ResumeOptions
    from actors.pod.runs.options import RunOptions as RunOptions
    from actors.routing.chain.chain import EscalationChain as EscalationChain
    from actors.routing.classifier import Classifier as Classifier
    from actors.routing.command_verifier import CommandVerifier as CommandVerifier
    from actors.routing.model_verifier import ModelVerifier as ModelVerifier
    from actors.routing.pool.memory_queue import MemoryQueue as MemoryQueue
    from actors.routing.pool.pool import Pool as Pool
    from actors.routing.pool.queue import TaskQueue as TaskQueue
    from actors.routing.pool.settings import pod_runner as pod_runner
    from actors.routing.pool.work import JobContext as JobContext
    from actors.routing.verifiers import AllOf as AllOf
    from actors.routing.verifiers import FunctionVerifier as FunctionVerifier
    from actors.routing.verifiers import Verifier as Verifier
    from actors.routing.warm_probe import WarmProbe as WarmProbe
    from actors.runtime.actor import AsyncActor as AsyncActor
    from actors.runtime.events.subscription import Closed as Closed
    from actors.runtime.events.subscription import Subscription as Subscription
    from actors.runtime.frozen import freeze_support as freeze_support
    from actors.runtime.future import AsyncFuture as AsyncFuture
    from actors.sessions.memory.store import MemoryStore as MemoryStore
    from actors.sessions.store import Claim as Claim
    from actors.sessions.store import Holder as Holder
    from actors.sessions.store import SessionInfo as SessionInfo
    from actors.sessions.store import SessionStore as SessionStore
    from actors.swarm.agents.agent import Agent as Agent
    from actors.swarm.agents.agent_events import AgentEvents as AgentEvents
    from actors.swarm.agents.swarm import Swarm as Swarm
    from actors.swarm.runners.base import Answer as Answer
    from actors.swarm.runners.base import Launch as Launch
    from actors.swarm.runners.base import Runner as Runner
    from actors.swarm.runners.function import AgentContext as AgentContext
    from actors.swarm.runners.function import runner_func as runner_func
    from actors.swarm.runners.local import LocalRunner as LocalRunner
    from actors.system import PodSystem as PodSystem
    from actors.tools.base import Tool as Tool
    from actors.tools.base import ToolContext as ToolContext
    from actors.tools.base import tool as tool
    from actors.tools.source import ToolSource as ToolSource
    from actors.tools.toolbox import Toolbox as Toolbox
    from protocol.config import LocalModelSection as LocalModelSection
    from protocol.config import RunnerSection as RunnerSection
else:  # imported by who uses it, so that nobody else pays for it
    __getattr__, __dir__ = _on_demand(
        __name__,
        {
            "Agent": "actors.swarm.agents.agent",
            "AgentContext": "actors.swarm.runners.function",
            "AgentEvents": "actors.swarm.agents.agent_events",
            "AllOf": "actors.routing.verifiers",
            "Answer": "actors.swarm.runners.base",
            "AsyncActor": "actors.runtime.actor",
            "AsyncFuture": "actors.runtime.future",
            "Block": "actors.llm.base",
            "CallChunk": "actors.llm.base",
            "CallEnd": "actors.llm.base",
            "CallStart": "actors.llm.base",
            "CassetteClient": "actors.llm.cassette",
            "Claim": "actors.sessions.store",
            "Classifier": "actors.routing.classifier",
            "Closed": "actors.runtime.events.subscription",
            "CommandVerifier": "actors.routing.command_verifier",
            "Configuration": "actors.config.configuration",
            "End": "actors.llm.base",
            "EscalationChain": "actors.routing.chain.chain",
            "FunctionVerifier": "actors.routing.verifiers",
            "Holder": "actors.sessions.store",
            "JobContext": "actors.routing.pool.work",
            "LLMClient": "actors.llm.base",
            "Launch": "actors.swarm.runners.base",
            "LocalModelSection": "protocol.config",
            "LocalRunner": "actors.swarm.runners.local",
            "MemoryQueue": "actors.routing.pool.memory_queue",
            "MemoryStore": "actors.sessions.memory.store",
            "ModelVerifier": "actors.routing.model_verifier",
            "Pod": "actors.pod.handle",
            "PodSystem": "actors.system",
            "Pool": "actors.routing.pool.pool",
            "Reply": "actors.llm.scripted",
            "Request": "actors.llm.base",
            "ResumeOptions": "actors.pod.runs.options",
            "RunOptions": "actors.pod.runs.options",
            "RunStream": "actors.pod.run_stream",
            "Runner": "actors.swarm.runners.base",
            "RunnerSection": "protocol.config",
            "ScriptedClient": "actors.llm.scripted",
            "SessionInfo": "actors.sessions.store",
            "SessionStore": "actors.sessions.store",
            "Subscription": "actors.runtime.events.subscription",
            "Swarm": "actors.swarm.agents.swarm",
            "TaskQueue": "actors.routing.pool.queue",
            "TextChunk": "actors.llm.base",
            "ThinkingChunk": "actors.llm.base",
            "TierEnded": "actors.llm.base",
            "TierStarted": "actors.llm.base",
            "Tool": "actors.tools.base",
            "ToolContext": "actors.tools.base",
            "ToolSource": "actors.tools.source",
            "Toolbox": "actors.tools.toolbox",
            "UsageReport": "actors.llm.base",
            "Verifier": "actors.routing.verifiers",
            "WarmProbe": "actors.routing.warm_probe",
            "call": "actors.llm.scripted",
            "freeze_support": "actors.runtime.frozen",
            "pod_runner": "actors.routing.pool.settings",
            "runner_func": "actors.swarm.runners.function",
            "say": "actors.llm.scripted",
            "tool": "actors.tools.base",
        },
    )

#: How ``polypod`` knows this package from strangers of the same name.
__polypod__ = "polypod"

__all__ = [
    "COMMANDS",
    "DURABLE_EVENTS",
    "ENTRIES",
    "EVENTS",
    "TRANSIENT_EVENTS",
    "Agent",
    "AgentActivity",
    "AgentBusy",
    "AgentContext",
    "AgentError",
    "AgentEvents",
    "AgentFailed",
    "AgentIdle",
    "AgentNotRunning",
    "AgentOutput",
    "AgentRestarted",
    "AgentResult",
    "AgentSpec",
    "AgentStarted",
    "AgentStopRequested",
    "AgentStopped",
    "Alert",
    "AllOf",
    "AlreadyResolved",
    "Answer",
    "ApprovalAnswer",
    "ApprovalRequested",
    "ApprovalResolved",
    "ApprovalRule",
    "ApprovalVerdict",
    "ApprovalsSection",
    "Approve",
    "AssistantItem",
    "AssistantMessage",
    "AsyncActor",
    "AsyncFuture",
    "AttemptFailed",
    "AttemptRecord",
    "Block",
    "BudgetError",
    "BudgetExceeded",
    "BudgetSection",
    "BudgetUse",
    "CallChunk",
    "CallEnd",
    "CallStart",
    "Cancel",
    "CassetteClient",
    "ChainEntry",
    "ChainExhausted",
    "ChainInvalid",
    "ChainRequest",
    "ChainResult",
    "Changes",
    "ChildEnded",
    "ChildError",
    "ChildLost",
    "ChildNotConfined",
    "ChildNotListening",
    "ChildNotStarted",
    "ChildStarted",
    "Children",
    "Claim",
    "Classification",
    "ClassificationRefused",
    "Classifier",
    "Closed",
    "Command",
    "CommandVerifier",
    "Compact",
    "CompactDone",
    "CompactFailed",
    "CompactReason",
    "CompactStart",
    "CompactionFailed",
    "CompactionSection",
    "Concurrency",
    "ConfigError",
    "Configuration",
    "ConsolidateDone",
    "ConsolidateFailed",
    "ConsolidateStart",
    "DelegationSection",
    "Deny",
    "Describe",
    "Disapprove",
    "DurableEvent",
    "End",
    "Entry",
    "EscalationChain",
    "Event",
    "EventKind",
    "Execution",
    "ExtractDone",
    "ExtractFailed",
    "ExtractStart",
    "Failure",
    "FetchSection",
    "FileChange",
    "ForeignError",
    "Fork",
    "FunctionVerifier",
    "Head",
    "HeadConflict",
    "History",
    "Holder",
    "HookError",
    "ImagePart",
    "Inject",
    "InvalidInput",
    "InvalidKey",
    "Item",
    "ItemEvent",
    "ItemsKept",
    "Job",
    "JobContext",
    "LLMClient",
    "Lagged",
    "Launch",
    "LineSplitter",
    "LineTooLong",
    "LocalModelSection",
    "LocalRunner",
    "ManifestError",
    "McpServer",
    "MemoryPointer",
    "MemoryQueue",
    "MemorySection",
    "MemoryStore",
    "MissingKey",
    "ModelError",
    "ModelErrorKind",
    "ModelRetry",
    "ModelSection",
    "ModelSettings",
    "ModelVerifier",
    "ModelView",
    "NameTaken",
    "NewerVersion",
    "NotImportable",
    "NotPaused",
    "NotRunning",
    "NotTrusted",
    "Notify",
    "OtherEntry",
    "OutputInvalid",
    "Parent",
    "Part",
    "Passivate",
    "Pause",
    "Permission",
    "Pod",
    "PodBusy",
    "PodDescription",
    "PodEnded",
    "PodError",
    "PodFailed",
    "PodLost",
    "PodManifest",
    "PodNotFound",
    "PodSection",
    "PodStarted",
    "PodState",
    "PodStopped",
    "PodSystem",
    "PodUnreachable",
    "PolypodError",
    "Pool",
    "PoolError",
    "ProcessLost",
    "PushItem",
    "RateLimited",
    "Replace",
    "Reply",
    "Request",
    "RestartSection",
    "RestartsExhausted",
    "Resume",
    "ResumeOptions",
    "Retry",
    "RoutingError",
    "Rule",
    "Run",
    "RunEnd",
    "RunFailed",
    "RunOptions",
    "RunOutcome",
    "RunReason",
    "RunResult",
    "RunStart",
    "RunStream",
    "Runner",
    "RunnerSection",
    "SandboxSection",
    "Scope",
    "ScopeRefused",
    "ScriptExhausted",
    "ScriptLeftover",
    "ScriptedClient",
    "SessionCorrupt",
    "SessionError",
    "SessionForked",
    "SessionInUse",
    "SessionInfo",
    "SessionNotFound",
    "SessionOpened",
    "SessionStore",
    "SpawnMemoryJobs",
    "StateChanged",
    "Steer",
    "Stop",
    "StoreError",
    "StoredEntry",
    "StreamRestart",
    "Subscription",
    "Swarm",
    "SystemItem",
    "SystemMessage",
    "SystemNotRunning",
    "SystemOfParent",
    "SystemStatus",
    "TaskQueue",
    "TextChunk",
    "TextDelta",
    "TextPart",
    "ThinkingChunk",
    "ThinkingDelta",
    "ThinkingPart",
    "TierAttempted",
    "TierEnded",
    "TierStarted",
    "TooManyChildren",
    "TooManyRestarts",
    "Tool",
    "ToolArgumentsInvalid",
    "ToolCall",
    "ToolCallDelta",
    "ToolCancelled",
    "ToolContext",
    "ToolDefinitionError",
    "ToolError",
    "ToolLoop",
    "ToolProgress",
    "ToolResult",
    "ToolResulted",
    "ToolSource",
    "ToolSourceError",
    "ToolSpec",
    "ToolStart",
    "ToolTimeout",
    "Toolbox",
    "ToolsSection",
    "TryPostRunExtract",
    "TryPreRunCompact",
    "TurnEnd",
    "TurnStart",
    "UnknownAgent",
    "UnknownApproval",
    "UnknownEntry",
    "UnknownJob",
    "UnknownRunner",
    "Usage",
    "UsageReport",
    "UsageUpdate",
    "UserItem",
    "UserMessage",
    "UserSource",
    "VendorPart",
    "Verdict",
    "Verifier",
    "WaitForMemoryJobs",
    "WaitForSubAgents",
    "WaitingForApproval",
    "WarmProbe",
    "WatchdogExpired",
    "WireError",
    "WireOptions",
    "WorkerSection",
    "WorkspaceError",
    "WouldDeadlock",
    "call",
    "decode_command",
    "decode_entry",
    "decode_event",
    "decode_item",
    "encode",
    "encode_line",
    "entry_for",
    "freeze_support",
    "pod_runner",
    "runner_func",
    "say",
    "tool",
]
