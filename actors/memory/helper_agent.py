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
from actors.tools.base import Toolbox, ToolContext
from protocol.errors import PodError
from protocol.items import Item, UserItem

T = TypeVar("T")

#: The model as a helper agent asks it; whoever hands it over counts what it takes.
Ask = Callable[[Request], Coroutine[Any, Any, Answer]]


#: What was cancelled and did not end; the loop itself does not hold on to its tasks.
_left_to_themselves: set[asyncio.Task[Any]] = set()


class HelperActor(AsyncActor):
    """Does one job a message beside its pod; ``leave`` has it stop asking the model, now and later."""

    _asking: asyncio.Task[Any] | None = None
    #: Resolves where what is asked is not waited for any longer.
    _overdue: asyncio.Future[None] | None = None
    _leaving = False

    async def ask_model(self, work: Coroutine[Any, Any, T], caller: Context | None) -> T:
        """What ``work`` returns, the part of the job that asks a model; it sees the context variables of
        ``caller``, or none. Raises what it raises, PodError where the job is given up.
        """
        given_up = "it was given up before it was done; all that was staged is kept"
        if self._leaving:
            work.close()
            raise PodError(given_up)
        context = Context() if caller is None else caller.copy()  # what the work sets is its own
        loop = asyncio.get_running_loop()
        asking = self._asking = loop.create_task(_without_exit(work), context=context)
        self._overdue = loop.create_future()
        try:
            await asyncio.wait((asking, self._overdue), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            asking.cancel()
            raise
        if not asking.done():
            _left_to_themselves.add(asking)
            asking.add_done_callback(_forget)
            raise PodError(given_up)
        if asking.cancelled():
            by_itself = "its client raised CancelledError by itself; nobody had cancelled it"
            raise PodError(given_up if asking.cancelling() else by_itself)
        result: T = asking.result()
        return result

    def leave(self, grace: float) -> AsyncFuture[bool]:
        """Ask the model no more; a client that goes on for ``grace`` seconds after its cancel is left to
        itself. What is being written is finished. The future resolves at the job's end.
        """
        self._leaving = True
        if self._asking is not None and not self._asking.done():
            self._asking.cancel()
            asyncio.get_running_loop().call_later(grace, self._wait_no_longer)
        return cast("AsyncFuture[bool]", self.actor_ref.stop(block=False))

    def _wait_no_longer(self) -> None:
        if self._overdue is not None and not self._overdue.done():
            self._overdue.set_result(None)


def _forget(asked: asyncio.Task[Any]) -> None:
    """Whatever came of it is nobody's."""
    _left_to_themselves.discard(asked)
    if not asked.cancelled():
        asked.exception()


async def _without_exit(work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` returns; an exit out of a task would go past who waits for it and end its loop."""
    try:
        return await work
    except SystemExit as error:
        raise PodError("its client would have ended the interpreter; all that was staged is kept") from error


class Reminder(NamedTuple):
    """What a helper agent is told that answered without a call; ``tool``, if any, it then has to call."""

    words: str
    tool: str | None = None


class HelperAgent(NamedTuple):
    """A model with a few tools and one task, in ``most_steps`` requests of ``max_tokens`` each at most.
    ``ask`` asks the model, and counts what that takes; ``context`` makes what a call of a tool is handed.
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
        """Have the model call its tools until it answers in words; whether it did within its steps.

        ``answered`` gets those words, and gives what the model is told then, or None where it is done.
        ``stands`` says of the error of a request whether what was done before stands: then that ends it, else
        it is raised. ``forced`` names the tool that is called first, by servers that hold a model to it.
        """
        told: list[Item] = [UserItem.of(task)]
        for _ in range(self.most_steps):
            try:
                answer = (await self.ask(self._request(told, forced))).item
            except Exception as error:
                if not stands(error):
                    raise
                return True
            told.append(answer)
            forced = None
            if answer.calls:
                told += [await self.toolbox.run(call, self.context()) for call in answer.calls]
                continue
            reminder = answered(answer.text)
            if reminder is None:
                return True
            told.append(UserItem.of(reminder.words))
            forced = reminder.tool
        return False

    def _request(self, told: list[Item], forced: str | None) -> Request:
        specs = self.toolbox.specs
        return Request(
            items=told,
            system=self.prompt,
            tools=specs if forced is None else tuple(each for each in specs if each.name == forced),
            model=self.model,
            max_tokens=self.max_tokens,
            forced_tool=forced,
            scratch={},
        )


class MemoryTask:
    """A helper agent's task that is done by calling its tools, or else, by weak models, in words."""

    def __init__(self, written: Callable[[], bool], reminder: Reminder | None = None) -> None:
        """``written`` tells whether its tools were called with anything; where not, it hears ``reminder``."""
        self._written = written
        self._reminder = reminder
        self._words = ""

    async def done_by(self, agent: HelperAgent, request: str, *, forced: str | None = None) -> str | None:
        """The words of ``agent`` where its tools hold nothing, also after the reminder, else an empty text;
        None where it came to no end. Raises what asking the model does, but not once it has said something.
        """
        ended = await agent.work(
            request, answered=self._answered, stands=lambda _: bool(self._words), forced=forced
        )
        if not ended:
            return None
        return "" if self._written() else self._words

    def _answered(self, text: str) -> Reminder | None:
        if self._written():
            return None
        self._words = said(text) or self._words
        reminder, self._reminder = self._reminder, None
        return None if says_nothing(self._words) else reminder
