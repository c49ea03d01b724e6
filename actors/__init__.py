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
    TierEnded,
    TierStarted,
    UsageReport,
)
from actors.llm.scripted import Reply, ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.pod.run_stream import RunStream
from actors.pod.runs.options import ResumeOptions, RunOptions
from actors.runtime.actor import AsyncActor
from actors.runtime.events.subscription import Closed, Subscription
from actors.runtime.frozen import freeze_support
from actors.runtime.future import AsyncFuture
from actors.runtime.on_demand import on_demand as _on_demand
from actors.sessions.memory.store import MemoryStore
from actors.sessions.store import Claim, Holder, SessionInfo, SessionStore
from actors.system import PodSystem
from actors.tools.base import Tool, ToolContext, tool
from actors.tools.source import ToolSource
from actors.tools.toolbox import Toolbox
from protocol import *

if _TYPE_CHECKING:
    from actors.config.configuration import Configuration as Configuration
    from actors.llm.cassette import CassetteClient as CassetteClient
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
    from actors.swarm.agents.agent import Agent as Agent
    from actors.swarm.agents.agent_events import AgentEvents as AgentEvents
    from actors.swarm.agents.swarm import Swarm as Swarm
    from actors.swarm.runners.base import Answer as Answer
    from actors.swarm.runners.base import Launch as Launch
    from actors.swarm.runners.base import Runner as Runner
    from actors.swarm.runners.function import AgentContext as AgentContext
    from actors.swarm.runners.function import runner_func as runner_func
    from actors.swarm.runners.local import LocalRunner as LocalRunner
    from protocol.config import LocalModelSection as LocalModelSection
    from protocol.config import RunnerSection as RunnerSection
else:  # imported by who uses it, so that nobody else pays for agents, or for the format of cassettes
    __getattr__ = _on_demand(
        __name__,
        {
            "AllOf": "actors.routing.verifiers",
            "CommandVerifier": "actors.routing.command_verifier",
            "EscalationChain": "actors.routing.chain.chain",
            "FunctionVerifier": "actors.routing.verifiers",
            "ModelVerifier": "actors.routing.model_verifier",
            "Verifier": "actors.routing.verifiers",
            "WarmProbe": "actors.routing.warm_probe",
            "Agent": "actors.swarm.agents.agent",
            "AgentContext": "actors.swarm.runners.function",
            "AgentEvents": "actors.swarm.agents.agent_events",
            "Answer": "actors.swarm.runners.base",
            "CassetteClient": "actors.llm.cassette",
            "RunnerSection": "protocol.config",
            "LocalRunner": "actors.swarm.runners.local",
            "LocalModelSection": "protocol.config",
            "Classifier": "actors.routing.classifier",
            "Configuration": "actors.config.configuration",
            "JobContext": "actors.routing.pool.work",
            "Launch": "actors.swarm.runners.base",
            "MemoryQueue": "actors.routing.pool.memory_queue",
            "Pool": "actors.routing.pool.pool",
            "Runner": "actors.swarm.runners.base",
            "Swarm": "actors.swarm.agents.swarm",
            "TaskQueue": "actors.routing.pool.queue",
            "pod_runner": "actors.routing.pool.settings",
            "runner_func": "actors.swarm.runners.function",
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
    "AgentActivity",
    "AgentBusy",
    "AgentError",
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
    "AlreadyResolved",
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
    "Closed",
    "Command",
    "Compact",
    "CompactDone",
    "CompactFailed",
    "CompactReason",
    "CompactStart",
    "CompactionFailed",
    "CompactionSection",
    "Concurrency",
    "ConfigError",
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
    "LLMClient",
    "Lagged",
    "LineSplitter",
    "LineTooLong",
    "ManifestError",
    "McpServer",
    "MemoryPointer",
    "MemorySection",
    "MemoryStore",
    "MissingKey",
    "ModelError",
    "ModelErrorKind",
    "ModelRetry",
    "ModelSection",
    "ModelSettings",
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
    "SystemItem",
    "SystemMessage",
    "SystemNotRunning",
    "SystemOfParent",
    "SystemStatus",
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
    "WaitForMemoryJobs",
    "WaitForSubAgents",
    "WaitingForApproval",
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
    "say",
    "tool",
]
