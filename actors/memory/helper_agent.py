"""A helper agent: one bounded model-and-tool loop, and the actor that runs one beside its pod."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, NamedTuple, TypeVar, cast

from actors.llm.base import Answer, Request
from actors.memory.helper_words import said, says_nothing
from actors.runtime.actor import AsyncActor
from actors.runtime.future import AsyncFuture
from actors.runtime.interruptible import Interruptible
from actors.tools.base import ToolContext
from actors.tools.toolbox import Toolbox
from protocol.errors import PodError
from protocol.items import Item, UserItem

T = TypeVar("T")

#: The model as a helper agent asks it; whoever hands it over counts what it takes.
Ask = Callable[[Request], Coroutine[Any, Any, Answer]]


class HelperActor(AsyncActor):
    """Does one job a message beside its pod; ``leave`` has it stop asking the model, now and later."""

    #: Seconds that a client has to end once it is cancelled.
    grace = 0.0
    _waits: Interruptible | None = None
    _leaving = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that it lives on."""
        return self._mailroom.loop

    async def ask_model(self, work: Coroutine[Any, Any, T], caller: Context | None) -> T:
        """What ``work`` returns, the part of the job that asks a model; it sees the context variables of
        ``caller``, or none. Raises what it raises, PodError where the job is given up.
        """
        waits = self._waits = Interruptible(self)
        if self._leaving:
            waits.interrupt()
        context = Context() if caller is None else caller.copy()  # what the work sets is its own
        try:
            return await waits.apart(work, "its client", context)
        except asyncio.CancelledError:
            if not waits.asked:
                raise
            raise PodError("it was given up before it was done; all that was staged is kept") from None

    def leave(self, grace: float) -> AsyncFuture[bool]:
        """Ask the model no more; a client that goes on for ``grace`` seconds after its cancel is left to
        itself. What is being written is finished. The future resolves at the job's end.
        """
        self._leaving, self.grace = True, grace
        if self._waits is not None:
            self._waits.interrupt()
        return cast("AsyncFuture[bool]", self.actor_ref.stop(block=False))

    def note_overdue(self, text: str) -> None:
        """Do nothing: the job is over without what did not end in time."""

    def go_on(self, left: Interruptible) -> None:
        """Its work is always in a task of its own, which is left."""

    def let_go(self, left: Interruptible) -> None:
        """Do nothing: its work is always in a task of its own, which is left."""


class Reminder(NamedTuple):
    """A message to a helper agent that answered without a call; ``tool``, if any, it then has to call."""

    words: str
    tool: str | None = None


class HelperAgent(NamedTuple):
    """A model with a few tools and one task, in ``most_steps`` requests of ``max_tokens`` each at most.
    ``ask`` asks the model and counts what that takes; ``context`` makes what a call of a tool is handed, with
    what its tools work on as ``deps``.
    """

    ask: Ask
    model: str
    toolbox: Toolbox
    context: Callable[[], ToolContext]
    prompt: str
    max_tokens: int
    most_steps: int

    async def work(
        self,
        task: str,
        *,
        answered: Callable[[str], Reminder | None],
        stands: Callable[[Exception], bool],
        forced: str | None = None,
    ) -> bool:
        """Have the model call its tools until it answers in words; returns whether it did within its steps.

        ``answered`` gets those words, and returns a reminder to the model, or None where it is done.
        ``stands`` says of the error of a request whether what was done before stands: then that ends it, else
        it is raised. ``forced`` names the tool that is called first, by servers that hold a model to it.
        """
        items: list[Item] = [UserItem.of(task)]
        for _ in range(self.most_steps):
            try:
                answer = (await self.ask(self._request(items, forced))).item
            except Exception as error:
                if not stands(error):
                    raise
                return True
            items.append(answer)
            forced = None
            if answer.calls:
                items += [await self.toolbox.run(call, self.context()) for call in answer.calls]
                continue
            reminder = answered(answer.text)
            if reminder is None:
                return True
            items.append(UserItem.of(reminder.words))
            forced = reminder.tool
        return False

    def _request(self, items: list[Item], forced: str | None) -> Request:
        specs = self.toolbox.specs
        return Request(
            items=items,
            system=self.prompt,
            tools=specs if forced is None else tuple(each for each in specs if each.name == forced),
            model=self.model,
            max_tokens=self.max_tokens,
            forced_tool=forced,
            scratch={},
            is_of_helper=True,
        )


class MemoryTask:
    """A helper agent's task that is done by calling its tools, or else, by weak models, in words."""

    def __init__(self, written: Callable[[], bool], reminder: Reminder | None = None) -> None:
        """``written`` says whether its tools were called with anything; where not, ``reminder`` is sent."""
        self._written = written
        self._reminder = reminder
        self._words = ""

    async def run_with(self, agent: HelperAgent, request: str, *, forced: str | None = None) -> str | None:
        """The words of ``agent`` where its tools hold nothing, also after the reminder, else an empty text;
        None where it came to no end. Raises what asking the model does, but not once it has said something.
        """
        ended = await agent.work(
            request, answered=self._take_answer, stands=lambda _: bool(self._words), forced=forced
        )
        if not ended:
            return None
        return "" if self._written() else self._words

    def _take_answer(self, text: str) -> Reminder | None:
        if self._written():
            return None
        self._words = said(text) or self._words
        reminder, self._reminder = self._reminder, None
        return None if says_nothing(self._words) else reminder
