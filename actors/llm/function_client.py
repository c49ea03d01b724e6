"""``FunctionClient``: a model that is a function of its request; for tests of what the model is asked."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from actors.llm.base import Block, CallStart, Request
from actors.llm.scripted import Reply, say
from protocol.errors import InvalidInput
from protocol.foreign import shown

#: What a function may give for a request.
Given = Reply | str


class FunctionClient:
    """Answers each request with what ``function(request)`` returns: a reply made of ``say`` and ``call``, or
    a text.

    The function may be ``async``, and what it raises is raised instead of an answer. ``requests`` keeps what
    was asked, for tests to look at.
    """

    model = "function"

    def __init__(self, function: Callable[[Request], Given | Awaitable[Given]]) -> None:
        if not callable(function):
            raise InvalidInput(f"function: expected a function of the request, got {shown(function)}")
        self._function = function
        self._ids = 0
        self.requests: list[Request] = []

    def __repr__(self) -> str:
        return f"<FunctionClient {getattr(self._function, '__name__', '?')}, {len(self.requests)} requests>"

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        """Answer ``request``. Raises what the function raises, and TypeError for anything that is not a
        reply.
        """
        self.requests.append(request)
        given: Any = self._function(request)
        if inspect.isawaitable(given):
            given = await given
        reply = say(given) if isinstance(given, str) else given
        if not isinstance(reply, Reply):
            raise TypeError(
                f"the function of a FunctionClient returned {shown(given)}, which is not a reply "
                "such as say(…) or call(…)"
            )
        async for block in reply.stream():
            yield self._with_id(block)

    def _with_id(self, block: Block) -> Block:
        if type(block) is not CallStart or block.id:
            return block
        self._ids += 1
        return CallStart(block.index, f"call-{self._ids}", block.name)
