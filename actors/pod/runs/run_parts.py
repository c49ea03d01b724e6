"""``RunParts``: the parts of a pod that its runs work with, handed on together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from actors.pod.pod_parts import PodParts

if TYPE_CHECKING:
    from actors.pod.approvals.open_approvals import OpenApprovals
    from actors.pod.memory.memory_jobs import MemoryJobs
    from actors.pod.memory.recall import Recall
    from actors.pod.resources import PodTemplate
    from actors.pod.runs.tool_calls import ToolCalls


class HasMemory(Protocol):
    """The owner of a pod's memory jobs."""

    @property
    def has_memory_jobs(self) -> bool:
        """Whether its memory jobs were ever needed."""

    @property
    def memory(self) -> MemoryJobs:
        """The memory jobs."""


class RunParts(PodParts, frozen=True, eq=False):
    """The parts of one pod that its runs need."""

    template: PodTemplate
    #: What has the memory jobs, and makes them when they are first needed.
    pod: HasMemory
    #: None where the history is not that of a new session, or nothing is to be recalled.
    recall: Recall | None
    tool_calls: ToolCalls
    #: Where any call may need a person's word; then ``tool_calls`` are an AskingToolCalls.
    approvals: OpenApprovals | None
