"""A pod's task list: its store, rebuilt from the history alone."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Self

import msgspec
from msgspec import UNSET, Struct, UnsetType

from actors.compaction.compose import SNAPSHOT
from actors.sessions.head import SessionHead
from protocol.errors import ToolError
from protocol.items import AssistantItem, Item, SystemItem, TextPart, ToolCall, ToolResult
from protocol.text import UNDECODABLE

Status = Literal["pending", "inprogress", "completed", "deleted"]

#: A snapshot has all tasks that are open, and of the others no more than the newest.
MOST_CLOSED = 20


class Task(Struct, frozen=True):
    """Something to do. A deleted task keeps its id and can still be looked up."""

    taskid: int
    subject: str
    description: str
    status: Status = "pending"

    @property
    def is_open(self) -> bool:
        """Whether it is still to be done."""
        return self.status in {"pending", "inprogress"}


class Written(Struct, frozen=True):
    """The result for a model that wrote a task: short, so that no cap on outputs can cut it.

    It repeats only words that are not the model's own, where a hook or a person has changed its call.
    """

    taskid: int
    status: Status | UnsetType = UNSET
    subject: str | UnsetType = UNSET
    description: str | UnsetType = UNSET


class _Update(Struct, frozen=True):
    taskid: int
    status: Status | None = None
    subject: str | None = None
    description: str | None = None


class TaskStore:
    """The tasks of one pod, as its history has them: a tool's change counts once its result is in the
    history.
    """

    __slots__ = ("_calls", "_tasks", "next_id")

    def __init__(self) -> None:
        self._tasks: dict[int, Task] = {}
        #: The calls read that have no result yet, by their ids.
        self._calls: dict[str, ToolCall] = {}
        self.next_id = 1

    def __repr__(self) -> str:
        return f"<TaskStore of {len(self._tasks)} tasks>"

    @classmethod
    def replayed(cls, items: Sequence[Item]) -> Self:
        """The store that a history leads to: its newest snapshot, and the successful calls after it. Only the
        runtime's own words count as a snapshot, never a user's or a tool's.
        """
        store = cls()
        store.read(items)
        return store

    def read(self, items: Iterable[Item]) -> None:
        """Follow a history that goes on with ``items``."""
        for item in items:
            if isinstance(item, AssistantItem):
                self._calls.update((call.id, call) for call in item.calls if call.name in _WRITERS)
            elif isinstance(item, ToolResult):
                call = self._calls.pop(item.call_id, None)
                if call is not None and not item.is_error:
                    self._repeat(call, _said_by_tool(item))
            elif isinstance(item, SystemItem) and item.text.startswith(SNAPSHOT):
                self._take(item.text)

    def copy(self) -> TaskStore:
        """An independent store with the same tasks."""
        other = TaskStore()
        other._tasks, other.next_id, other._calls = dict(self._tasks), self.next_id, dict(self._calls)
        return other

    def written(self, task: Task, call_id: str) -> Written:
        """The result of that call, carried out here as the model asked for it, if it has written ``task``."""
        said, call = Written(task.taskid, task.status), self._calls.get(call_id)
        if call is None:
            return said
        self._repeat(call, msgspec.json.encode(said).decode())
        asked = self._tasks.get(task.taskid)
        return Written(
            task.taskid,
            task.status,
            UNSET if asked is not None and asked.subject == task.subject else task.subject,
            UNSET if asked is not None and asked.description == task.description else task.description,
        )

    def create(self, subject: str, description: str) -> Task:
        """Add a task with status "to do"; ids count from 1 and are never used again."""
        return self._put(Task(self.next_id, subject, description))

    def update(
        self,
        taskid: int,
        status: Status | None = None,
        subject: str | None = None,
        description: str | None = None,
    ) -> Task:
        """Change those fields of a task that are given. Raises ToolError."""
        if status is None and subject is None and description is None:
            raise ToolError("give at least one of status, subject and description")
        task = self.get(taskid)
        return self._put(
            Task(
                taskid,
                task.subject if subject is None else subject,
                task.description if description is None else description,
                task.status if status is None else status,
            )
        )

    def get(self, taskid: int) -> Task:
        """The task of that id, even a deleted one. Raises ToolError."""
        task = self._tasks.get(taskid)
        if task is None:
            raise ToolError(f"taskid {taskid} not found")
        return task

    def list(self) -> list[Task]:
        """The tasks in order of their ids, without the deleted."""
        return [task for task in self._tasks.values() if task.status != "deleted"]

    def snapshot(self) -> str:
        """The store as text for a model, from which ``replayed`` restores it."""
        closed = [taskid for taskid, task in self._tasks.items() if not task.is_open]
        forgotten = set(closed[:-MOST_CLOSED])
        kept = [task for taskid, task in self._tasks.items() if taskid not in forgotten]
        lines = [msgspec.json.encode(task).decode() for task in kept] or ["no tasks"]
        return "\n".join([f"next taskid: {self.next_id}", *lines])

    def _put(self, task: Task) -> Task:
        self._tasks[task.taskid] = task
        self.next_id = max(self.next_id, task.taskid + 1)
        return task

    def _repeat(self, call: ToolCall, result: str) -> None:
        """Repeat what a recorded call did: as its result says, or else as the model asked for it."""
        ran = dict(call.arguments)
        with contextlib.suppress(*UNDECODABLE):  # a hook's words stand there
            ran |= msgspec.to_builtins(msgspec.json.decode(result, type=Written))
        try:
            if call.name == TASK_CREATE:
                self._put(msgspec.convert(ran, Task))
            else:
                change = msgspec.convert(ran, _Update)
                self.update(change.taskid, change.status, change.subject, change.description)
        except (*UNDECODABLE, ToolError):
            return  # a tool of the user's own that has this name, not ours

    def _take(self, text: str) -> None:
        """Take over what a snapshot says, if the text is one."""
        found = re.match(rf"{re.escape(SNAPSHOT)}\nnext taskid: (\d{{1,9}})\n", text)
        if found is None:
            return
        lines = [line for line in text[found.end() :].split("\n") if line.startswith("{")]
        try:
            tasks = [msgspec.json.decode(line, type=Task) for line in lines]
        except UNDECODABLE:
            return
        self._tasks, self.next_id = {}, int(found[1])
        for task in tasks:
            self._put(task)


def _said_by_tool(result: ToolResult) -> str:
    """The tool's own part of a result: what hooks and people add stands in parts after it."""
    first = result.content[0] if result.content else None
    return first.text if isinstance(first, TextPart) else ""


class TaskListReader:
    """Reads a pod's task list from its history, each time only what is new.

    It remembers the last item it has read rather than the list of items, because a compaction, a fork of a
    stalled pod or a passive time replaces that list, and a refused commit cuts it back. If the item is no
    longer in its place, everything is read again.
    """

    __slots__ = ("__weakref__", "_head", "_last", "_length", "_session_id", "_store")

    def __init__(self, head: SessionHead) -> None:
        self._head = head
        self._forget()

    def _forget(self) -> None:
        self._store = TaskStore()
        self._session_id = self._head.session_id
        self._length = 0
        self._last: Item | None = None

    def tasks(self) -> TaskStore:
        """The current tasks, in a store of the caller's own: changes to it are forgotten unless they get into
        the history.
        """
        items = self._head.items
        if not self._stands(items):
            self._forget()
        if len(items) > self._length:
            self._store.read(items[self._length :])
            self._length, self._last = len(items), items[-1]
        return self._store.copy()

    def _stands(self, items: list[Item]) -> bool:
        """Whether the items that were read are still the beginning of the history."""
        if self._session_id != self._head.session_id or len(items) < self._length:
            return False
        return self._length == 0 or items[self._length - 1] is self._last


TaskStores = Callable[[str], TaskStore]

TASK_CREATE, TASK_UPDATE = "TaskCreate", "TaskUpdate"
_WRITERS = frozenset({TASK_CREATE, TASK_UPDATE})
