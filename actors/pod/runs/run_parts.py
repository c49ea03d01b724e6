"""``RunParts``: the parts of a pod that its runs work with, as they are handed on when these are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from actors.pod.accounts.accounts import Accounts
    from actors.pod.approvals.open_approvals import OpenApprovals
    from actors.pod.history.conversation import Conversation
    from actors.pod.memory.memory_jobs import MemoryJobs
    from actors.pod.memory.recall import Recall
    from actors.pod.resources import PodResources, PodTemplate
    from actors.pod.runs.tool_calls import ToolCalls
    from actors.pod.session.journal import Journal
    from actors.pod.status import Status
    from actors.pod.tasks_at_work import TasksAtWork
    from actors.runtime.loop import Mailroom


class HasMemory(Protocol):
    """What has the memory jobs of a pod."""

    @property
    def memory(self) -> MemoryJobs:
        """The memory jobs."""


class RunParts(Struct, frozen=True, eq=False):
    """The parts of one pod that its runs need."""

    resources: PodResources
    template: PodTemplate
    status: Status
    journal: Journal
    accounts: Accounts
    conversation: Conversation
    #: What has the memory jobs, and makes them when they are first needed.
    pod: HasMemory
    #: None where the history is not that of a new session, or nothing is to be recalled.
    recall: Recall | None
    tool_calls: ToolCalls
    tasks: TasksAtWork
    mailroom: Mailroom
    #: Where any call may need a person's word; then ``tool_calls`` are an AskingToolCalls.
    approvals: OpenApprovals | None
