"""``ScriptedClient``: plays replies from a script; for tests of agents, and the plainest client there is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any, Self

import msgspec
from msgspec import Struct

from actors.llm.base import (
    Block,
    CallChunk,
    CallEnd,
    CallStart,
    End,
    Request,
    StopReason,
    TextChunk,
    ThinkingChunk,
    UsageReport,
)
from actors.runtime.arguments import check_count, several, table_of
from protocol.errors import InvalidInput, ScriptExhausted, ScriptLeftover
from protocol.foreign import shown
from protocol.usage import Usage


class Reply(Struct, frozen=True):
    """One answer of a script, made by ``say`` and ``call``; replies can be added to one with both."""

    blocks: tuple[Block, ...]
    usage: Usage | None = None
    stop_reason: StopReason = "end_turn"

    def __add__(self, other: Reply) -> Reply:
        """One answer with the blocks of both and the latter's usage and stop reason."""
        shift = 1 + max((block.index for block in self.blocks if hasattr(block, "index")), default=-1)
        moved = tuple(
            msgspec.structs.replace(block, index=block.index + shift) if hasattr(block, "index") else block
            for block in other.blocks
        )
        return Reply(
            (*self.blocks, *moved), other.usage if other.usage is not None else self.usage, other.stop_reason
        )

    async def stream(self) -> AsyncIterator[Block]:
        """The answer as a client streams it."""
        for block in self.blocks:
            yield block
        if self.usage is not None:
            yield UsageReport(self.usage)
        yield End(self.stop_reason)


def say(
    text: str,
    *,
    input_tokens: int | None = None,
    output_tokens: int | None = None,
    chunks: int = 1,
    thinking: str | None = None,
    stop_reason: StopReason = "end_turn",
) -> Reply:
    """A reply in words, streamed in about ``chunks`` pieces; token counts as a server would report them.
    Raises InvalidInput for what is not text.
    """
    if not isinstance(text, str):
        raise InvalidInput(f"text: expected a string, got {shown(text)}")
    check_count("chunks", chunks, 1, "pieces")
    size = max(1, -(-len(text) // chunks))
    index = 0
    blocks: list[Block] = []
    if thinking is not None:
        blocks.append(ThinkingChunk(thinking, index))
        index = 1
    blocks += [TextChunk(text[at : at + size], index) for at in range(0, len(text), size)]
    return Reply(tuple(blocks), _usage(input_tokens, output_tokens), stop_reason)


def call(
    name: str,
    arguments: dict[str, Any] | str | None = None,
    *,
    id: str | None = None,  # noqa: A002 - the field's own name
    input_tokens: int | None = None,
    output_tokens: int | None = None,
) -> Reply:
    """A reply that calls a tool. ``arguments`` may be a text, to play a model that writes bad JSON.
    Raises InvalidInput for what has no JSON.
    """
    text = arguments if isinstance(arguments, str) else _json_of(arguments)
    # Without an id of its own a call gets one from the client that plays it, so that each is unique.
    blocks: tuple[Block, ...] = (CallStart(0, id or "", name), CallChunk(0, text), CallEnd(0))
    return Reply(blocks, _usage(input_tokens, output_tokens), "tool_use")


def _json_of(arguments: dict[str, Any] | None) -> str:
    """Raises InvalidInput."""
    table = {} if arguments is None else table_of("arguments", arguments)
    try:
        return msgspec.json.encode(table).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"arguments: {shown(table)} is not JSON: {error}") from error


def _reply_of(given: object) -> Reply | BaseException | type[BaseException]:
    """Raises InvalidInput."""
    if isinstance(given, str):
        return say(given)
    if isinstance(given, Reply | BaseException) or (
        isinstance(given, type) and issubclass(given, BaseException)
    ):
        return given
    raise InvalidInput(
        f"replies: {shown(given)} is not a reply",
        hint="a reply is a string, say(…), call(…), or an exception",
    )


def _usage(input_tokens: int | None, output_tokens: int | None) -> Usage | None:
    if input_tokens is None and output_tokens is None:
        return None
    return Usage(input_tokens, output_tokens)


class ScriptedClient:
    """Answers each request with the next reply of its script (a text is one, as of ``say``); an exception in
    the script is raised. Raises InvalidInput for what is not a list of those.

    Running out raises ScriptExhausted, which is never retried; with ``repeat`` the script begins anew.
    ``check()`` raises ScriptLeftover where replies are left, unless ``leftovers`` are allowed, as they are of
    a script that repeats. ``requests`` keeps what was asked, for tests to look at.
    """

    model = "scripted"

    def __init__(
        self,
        replies: Iterable[str | Reply | BaseException | type[BaseException]],
        *,
        repeat: bool = False,
        leftovers: bool = False,
    ) -> None:
        self._replies = [_reply_of(each) for each in several("replies", replies)]
        self._repeat = repeat
        self._leftovers = leftovers or repeat
        self._next = 0
        self._ids = 0
        self.requests: list[Request] = []

    def __repr__(self) -> str:
        return f"<ScriptedClient {self._next} of {len(self._replies)} played>"

    @property
    def remaining(self) -> int:
        """How many replies are left."""
        return len(self._replies) - self._next

    def stream(self, request: Request) -> AsyncIterator[Block]:
        """Play the next reply."""
        self.requests.append(request)
        return self._play()

    async def _play(self) -> AsyncIterator[Block]:
        if self._next >= len(self._replies) and self._repeat:
            self._next = 0
        if self._next >= len(self._replies):
            length = f"{len(self._replies)} {'reply' if len(self._replies) == 1 else 'replies'}"
            raise ScriptExhausted(f"the script has {length}, but one more was requested")
        reply = self._replies[self._next]
        self._next += 1
        if not isinstance(reply, Reply):
            raise reply
        for block in reply.blocks:
            if type(block) is CallStart and not block.id:
                self._ids += 1
                yield CallStart(block.index, f"call-{self._ids}", block.name)
            else:
                yield block
        if reply.usage is not None:
            yield UsageReport(reply.usage)
        yield End(reply.stop_reason)

    def check(self) -> None:
        """Raise ScriptLeftover if replies are left that have to be asked for."""
        if self.remaining and not self._leftovers:
            raise ScriptLeftover(
                f"{self.remaining} of {len(self._replies)} scripted replies were never requested"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.check()
