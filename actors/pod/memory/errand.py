"""A little worker: a model that does one errand with a few tools and then says a word."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from actors.llm.base import Answer, Request
from actors.tools.base import Toolbox, ToolContext
from protocol.items import Item, UserItem

#: The model as a little worker asks it; whoever hands it over counts what it takes.
Ask = Callable[[Request], Coroutine[Any, Any, Answer]]


def is_cancelled() -> bool:
    """Whether the task that runs is to end itself, and not only something that it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def errand(
    ask: Ask,
    model: str,
    toolbox: Toolbox,
    ctx: ToolContext,
    *,
    prompt: str,
    request: str,
    most_steps: int,
) -> bool:
    """Have the errand done; whether the worker came to its end within ``most_steps`` requests.

    What it brings is what its tools were called with. Raises what ``ask`` raises.
    """
    told: list[Item] = [UserItem.of(request)]
    for _ in range(most_steps):
        answer = await ask(Request(items=told, system=prompt, tools=toolbox.specs, model=model, scratch={}))
        told.append(answer.item)
        if not answer.item.calls:
            return True
        told += [await toolbox.run(call, ctx) for call in answer.item.calls]
    return False
