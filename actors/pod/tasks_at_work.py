"""``TasksAtWork``: the tasks of one pod; a defect in one of them ends the pod."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, ClassVar

from actors.runtime.interruptible import Left
from actors.runtime.tasks import begin_task, task_on


class TasksAtWork:
    """Starts what a pod does beside its mailbox, and holds on to it: a loop itself does not."""

    __slots__ = ("_on_defect", "loop", "name")

    #: All that are under way, of all pods.
    _tasks: ClassVar[set[asyncio.Task[Any]]] = set()

    def __init__(
        self, loop: asyncio.AbstractEventLoop, name: str, on_defect: Callable[[BaseException], None]
    ) -> None:
        """``on_defect`` hears of what a task raises that nobody expects."""
        self.loop = loop
        self.name = name
        self._on_defect = on_defect

    def start(self, work: Coroutine[Any, Any, None], caller: Context | None = None) -> None:
        """Have ``work`` done in a task, which sees the context variables of its ``caller``, or none."""
        # Not ``create_task``, since a task that its loop's factory starts at once ends within this call.
        asyncio.Task(
            self._done(work), loop=self.loop, name=self.name, context=Context() if caller is None else caller
        )

    def start_at_once(self, work: Coroutine[Any, Any, None], caller: Context | None = None) -> None:
        """The same, up to its first wait before this returns."""
        begin_task(self._done(work), self.loop, Context() if caller is None else caller, self.name)

    async def _done(self, work: Coroutine[Any, Any, None]) -> None:
        task = task_on(self.loop)
        assert task is not None
        self._tasks.add(task)
        try:
            await work
        except (Left, asyncio.CancelledError):
            return
        except Exception as error:  # noqa: BLE001 - a defect of ours
            self._on_defect(error)
        finally:
            self._tasks.discard(task)
