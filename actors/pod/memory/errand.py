"""A helper agent of memory: an actor that has a model do one errand with a few tools."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, NamedTuple, TypeVar, cast

from actors.llm.base import Answer, Request
from actors.pod.memory.helper_words import said, says_nothing
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
    """What a worker is told, once, that said something and called no tool; ``tool`` it then has to call."""

    words: str
    tool: str


async def errand(
    ask: Ask,
    model: str,
    toolbox: Toolbox,
    ctx: ToolContext,
    *,
    prompt: str,
    request: str,
    most_steps: int,
    max_tokens: int,
    written: Callable[[], bool],
    forced: str | None = None,
    reminder: Reminder | None = None,
) -> str | None:
    """Have the errand done; None where the worker came to no end within ``most_steps`` requests.

    What it brings is what its tools were called with, of which ``forced`` has to be called first, by servers
    that can hold a model to it; ``written`` tells whether that is anything. Where it is nothing, also after
    the ``reminder``, it gives what the worker said in words, else nothing. Raises what ``ask`` raises, but
    not once something was said: that stands.
    """
    told: list[Item] = [UserItem.of(request)]
    words = ""
    for _ in range(most_steps):
        specs = toolbox.specs
        tools = specs if forced is None else tuple(each for each in specs if each.name == forced)
        asked = Request(
            items=told,
            system=prompt,
            tools=tools,
            model=model,
            max_tokens=max_tokens,
            forced_tool=forced,
            scratch={},
        )
        try:
            answer = (await ask(asked)).item
        except Exception:
            if not words:
                raise
            return words
        told.append(answer)
        forced = None
        if answer.calls:
            told += [await toolbox.run(call, ctx) for call in answer.calls]
            continue
        if written():
            return ""
        words = said(answer.text) or words
        if reminder is None or says_nothing(words):
            return words
        forced = reminder.tool
        told.append(UserItem.of(reminder.words))
        reminder = None
    return None
