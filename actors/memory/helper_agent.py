"""``HelperAgent``: one bounded model-and-tool loop; ``HelperActor``: the actor that runs one beside
its pod.
"""

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
from protocol.errors import BudgetError, ModelError, PodError
from protocol.items import Item, UserItem

T = TypeVar("T")

#: How many times longer than usual an answer may be at most, if shorter ones were cut before they said
#: anything: to many models reasoning counts as part of the answer.
MOST_LONGER = 4

#: Asks the model for a helper agent; whoever provides it counts the usage.
Ask = Callable[[Request], Coroutine[Any, Any, Answer]]


class HelperActor(AsyncActor):
    """Does one job for each message, beside its pod; ``leave`` makes it stop asking the model for good."""

    #: Seconds that a client has to end once it is cancelled.
    grace = 0.0
    _waits: Interruptible | None = None
    _leaving = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that it runs on."""
        return self._mailroom.loop

    async def ask_model(self, work: Coroutine[Any, Any, T], caller: Context | None) -> T:
        """Run ``work``, the part of the job that asks a model, and return its result. It sees the context
        variables of ``caller``, or none. Raises what it raises, and PodError if the job is given up.
        """
        waits = self._waits = Interruptible(self)
        if self._leaving:
            waits.interrupt()
        context = Context() if caller is None else caller.copy()  # what the work sets stays its own
        try:
            return await waits.apart(work, "its client", context)
        except asyncio.CancelledError:
            if not waits.asked:
                raise
            raise PodError("it was stopped before it finished; everything staged is kept") from None

    def leave(self, grace: float) -> AsyncFuture[bool]:
        """Stop asking the model; a client that is still running ``grace`` seconds after its cancel is
        abandoned. What is being written is finished. The future resolves at the job's end.
        """
        self._leaving, self.grace = True, grace
        if self._waits is not None:
            self._waits.interrupt()
        return cast("AsyncFuture[bool]", self.actor_ref.stop(block=False))

    def note_overdue(self, text: str) -> None:
        """Do nothing: the job is over without what did not end in time."""

    def go_on(self, left: Interruptible) -> None:
        """Do nothing: its work is always in a task of its own, which is abandoned."""

    def let_go(self, left: Interruptible) -> None:
        """Do nothing: its work is always in a task of its own, which is abandoned."""


class Reminder(NamedTuple):
    """A message to a helper agent that has answered without a call. It then has to call ``tool``,
    if given.
    """

    words: str
    tool: str | None = None


class HelperAgent(NamedTuple):
    """A model with a few tools and one task, in ``most_steps`` requests of at most ``max_tokens`` each: twice
    or four times as many once an answer was cut before it had said or called anything. ``ask`` asks the model
    and counts the usage; ``context`` makes the context of a tool call, whose ``deps`` are what the tools work
    on.
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
        """Have the model call its tools until it answers in words. Returns whether it did within its steps.

        ``answered`` is called with those words, and returns a reminder for the model, or None if it is done.
        ``stands`` is called with the error of a request, and says whether what was done before is kept; then
        the work ends, otherwise the error is raised. ``forced`` names the tool that must be called first, if
        the server can enforce that.
        """
        items: list[Item] = [UserItem.of(task)]
        longer, longest = 1, MOST_LONGER
        for _ in range(self.most_steps):
            try:
                whole = await self.ask(self._request(items, forced, longer * self.max_tokens))
            except Exception as error:
                if longer > 1 and _asked_for_too_much(error):
                    longer = longest = longer // 2
                    continue
                if not stands(error):
                    raise
                return True
            answer = whole.item
            if longer < longest and _was_cut_in_vain(whole):
                longer *= 2
                continue
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

    def _request(self, items: list[Item], forced: str | None, max_tokens: int) -> Request:
        specs = self.toolbox.specs
        return Request(
            items=items,
            system=self.prompt,
            tools=specs if forced is None else tuple(each for each in specs if each.name == forced),
            model=self.model,
            max_tokens=max_tokens,
            forced_tool=forced,
            scratch={},
            is_of_helper=True,
        )


def _asked_for_too_much(error: Exception) -> bool:
    """Whether an answer might have been longer than the model can write, or the budget pays for."""
    return isinstance(error, BudgetError) or (
        isinstance(error, ModelError) and error.kind == "invalid_request"
    )


def _was_cut_in_vain(answer: Answer) -> bool:
    """Whether an answer reached its limit in the middle of a call, or before it said anything."""
    if answer.stop_reason != "max_tokens":
        return False
    item = answer.item
    return any(call.invalid is not None for call in item.calls) or not (item.calls or said(item.text))


class MemoryTask:
    """A helper agent's task that is done by calling its tools or, by weak models, in words."""

    def __init__(self, written: Callable[[], bool], reminder: Reminder | None = None) -> None:
        """``written`` says whether its tools were called with anything; if not, ``reminder`` is sent."""
        self._written = written
        self._reminder = reminder
        self._words = ""

    async def run_with(self, agent: HelperAgent, request: str, *, forced: str | None = None) -> str | None:
        """Run ``agent``. Returns its words if it wrote nothing with its tools, even after the reminder,
        otherwise an empty text; None if it did not finish. Raises what asking the model raises, but not once
        it has said something.
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
        # after the reminder, a model that has said it before may only say so
        self._words = "\n\n".join(filter(None, (self._words, said(text))))
        reminder, self._reminder = self._reminder, None
        return None if says_nothing(self._words) else reminder
