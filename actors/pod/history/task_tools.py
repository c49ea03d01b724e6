"""The tools by which a model keeps a pod's task list; imported by pods that have them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from actors.pod.history.task_list import (
    TASK_CREATE,
    TASK_UPDATE,
    Status,
    Task,
    TaskStore,
    TaskStores,
    Written,
)
from actors.tools.base import Tool, ToolContext, tool
from actors.tools.extras import TASKS
from protocol.errors import ToolError

TaskId = Annotated[int, Meta(description="the number that TaskCreate gave the task")]
Subject = Annotated[str, Meta(description="what to do, in a few words")]
Description = Annotated[str, Meta(description="what is needed to complete it")]


# The tools are coroutines though they wait for nothing: a store belongs to its pod's event loop.


@tool(name=TASK_CREATE)
async def task_create(subject: Subject, description: Description, ctx: ToolContext) -> Written:
    """Put a task on the list of what is to be done, and get its taskid."""
    return _written(_store(ctx).create(subject, description), ctx)


@tool(name=TASK_UPDATE)
async def task_update(
    taskid: TaskId,
    ctx: ToolContext,
    status: Status | None = None,
    subject: Subject | None = None,
    description: Description | None = None,
) -> Written:
    """Change a task's status, subject or description; at least one of them is needed."""
    return _written(_store(ctx).update(taskid, status, subject, description), ctx)


@tool(name="TaskGet", concurrency="read_only")
async def task_get(taskid: TaskId, ctx: ToolContext) -> Task:
    """Read one task with its description."""
    return _store(ctx).get(taskid)


@tool(name="TaskList", concurrency="read_only")
async def task_list(ctx: ToolContext) -> str:
    """List the tasks with their status, one a line; those that were deleted are left out."""
    lines = [f"{task.taskid}. [{task.status}] {task.subject}" for task in _store(ctx).list()]
    return "\n".join(lines) or "no tasks"


TASK_TOOLS: tuple[Tool, ...] = (task_create, task_update, task_get, task_list)


def _written(task: Task, ctx: ToolContext) -> Written:
    return _store(ctx).written(task, ctx.call_id)


def _store(ctx: ToolContext) -> TaskStore:
    stores: TaskStores | None = ctx.extras.get(TASKS)
    if stores is None:
        raise ToolError("this pod has no task list")
    return stores(ctx.pod)
