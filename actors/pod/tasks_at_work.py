"""``TasksAtWork``: starts and keeps the asyncio tasks of a pod; an unexpected error in one ends the pod."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol

from actors.runtime.interruptible import Left
from actors.runtime.tasks import begin_task, of_actors, task_on

if TYPE_CHECKING:
    from actors.runtime.loop import Mailroom


class Owner(Protocol):
    """Whose tasks they are."""

    def end_by_defect(self, error: BaseException) -> None:
        """End, because one of the tasks raised an unexpected error."""


class TasksAtWork:
    """Starts the asyncio tasks of a pod beside its mailbox. A loop alone does not keep its tasks alive."""

    __slots__ = ("_mailroom", "_owner", "loop", "name")

    def __init__(self, mailroom: Mailroom, name: str, owner: Owner) -> None:
        self._mailroom, self.loop = mailroom, mailroom.loop
        self.name = name
        self._owner = owner

    def start(self, work: Coroutine[Any, Any, None], caller: Context | None = None) -> None:
        """Start ``work`` in a task, which sees the context variables of its ``caller``, or none."""
        # Not ``create_task``, since a task that its loop's factory starts at once ends within this call.
        context = Context() if caller is None else caller
        self._mailroom.to_begin += 1
        asyncio.Task(self._run_guarded(work, counted=True), loop=self.loop, name=self.name, context=context)

    def start_at_once(self, work: Coroutine[Any, Any, None], caller: Context | None = None) -> None:
        """As ``start``, but runs the work up to its first wait before this returns."""
        context = Context() if caller is None else caller
        begin_task(self._run_guarded(work, counted=False), self.loop, context, self.name)

    async def _run_guarded(self, work: Coroutine[Any, Any, None], *, counted: bool) -> None:
        """Carry out ``work``; ``counted`` says that the mail room counts it as waiting to begin."""
        if counted:
            self._mailroom.to_begin -= 1
        task = task_on(self.loop)
        assert task is not None
        of_actors.add(task)
        try:
            await work
        except (Left, asyncio.CancelledError):
            return
        except Exception as error:  # noqa: BLE001 - a defect of ours
            self._owner.end_by_defect(error)
        finally:
            of_actors.discard(task)
