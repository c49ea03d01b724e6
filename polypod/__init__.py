"""polypod: an actor-model runtime for LLM agents. The public names, for programs that use it."""

from polypod.loading import end_at_ctrl_c, is_command

end_at_ctrl_c()

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING


def _require_own(name: str) -> None:
    """Import our package ``name``, or say what stands in its way: a file or folder of the user's, whose code
    is not run, or a distribution that has put its own files over ours. Raises ImportError.
    """
    found = sys.modules.get(name) or find_spec(name)
    places = getattr(found, "__path__", None) or getattr(found, "submodule_search_locations", None)
    file: str = getattr(found, "__file__", None) or getattr(found, "origin", None) or ""
    where = file or next(iter(places or ()), None)
    beside_us = file != "" and Path(file).resolve().parents[1] == Path(__file__).resolve().parents[1]
    if beside_us and getattr(import_module(name), "__polypod__", None) == "polypod":
        return
    why = (
        f"polypod needs its own package {name!r}, and "
        + (f"Python finds another one first: {where}. " if where else "it is not there. ")
        + "Rename or move that file or folder, or, if it belongs to another distribution, install polypod "
        "in an environment without that one."
    )
    if is_command():
        sys.stderr.write(f"polypod: {why}\n")  # a person at a terminal gets no traceback
        sys.exit(2)
    raise ImportError(why)


for _name in ("protocol", "actors"):
    _require_own(_name)

from actors import *
from actors.runtime.on_demand import on_demand
from actors.version import __version__

if TYPE_CHECKING:
    from polypod.testing import CassetteClient
else:  # imported by who uses it, so that nobody else pays for the format of cassettes
    __getattr__ = on_demand(__name__, "CassetteClient", "testing")

__all__ = [
    "COMMANDS",
    "DURABLE_EVENTS",
    "ENTRIES",
    "EVENTS",
    "TRANSIENT_EVENTS",
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
    "Claim",
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
    "ConsolidateDone",
    "ConsolidateFailed",
    "ConsolidateStart",
    "Deny",
    "Describe",
    "Disapprove",
    "DurableEvent",
    "End",
    "Entry",
    "Event",
    "EventKind",
    "ExtractDone",
    "ExtractFailed",
    "ExtractStart",
    "Failure",
    "FetchSection",
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
    "LLMClient",
    "Lagged",
    "LineSplitter",
    "ManifestError",
    "MemoryPointer",
    "MemorySection",
    "MemoryStore",
    "MissingKey",
    "ModelError",
    "ModelErrorKind",
    "ModelSection",
    "ModelView",
    "NameTaken",
    "NewerVersion",
    "NotPaused",
    "NotRunning",
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
    "PodManifest",
    "PodNotFound",
    "PodSection",
    "PodStarted",
    "PodState",
    "PodStopped",
    "PodSystem",
    "PodUnreachable",
    "PolypodError",
    "PushItem",
    "Replace",
    "Reply",
    "Request",
    "RestartSection",
    "Resume",
    "Retry",
    "Rule",
    "Run",
    "RunEnd",
    "RunFailed",
    "RunOutcome",
    "RunReason",
    "RunResult",
    "RunStart",
    "RunStream",
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
    "TextChunk",
    "TextDelta",
    "TextPart",
    "ThinkingChunk",
    "ThinkingDelta",
    "ThinkingPart",
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
    "UnknownApproval",
    "UnknownEntry",
    "Usage",
    "UsageReport",
    "UsageUpdate",
    "UserItem",
    "UserMessage",
    "UserSource",
    "VendorPart",
    "WaitForMemoryJobs",
    "WaitingForApproval",
    "WireError",
    "WorkerSection",
    "WouldDeadlock",
    "__version__",
    "call",
    "decode_command",
    "decode_entry",
    "decode_event",
    "decode_item",
    "encode",
    "encode_line",
    "say",
    "tool",
]
