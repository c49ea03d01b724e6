"""``OfflineClient``: the client of the embedded default model, which is deterministic and needs no
network.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence

import msgspec

from actors.llm.base import (
    Block,
    CallChunk,
    CallEnd,
    CallStart,
    End,
    Request,
    StopReason,
    TextChunk,
    UsageReport,
)
from actors.llm.offline.extractive import COMPACTED, OPEN_REQUEST
from actors.llm.offline.forms import in_form
from actors.llm.offline.helper_tasks import work_asked
from actors.llm.offline.phrases import understood
from actors.llm.offline.plans import Answer, OfflineContext, Wanted, follow, was_interrupted, was_not_run
from actors.llm.offline.play_plans import play
from actors.runtime.in_thread import in_thread
from protocol.items import AssistantItem, Item, SystemItem, ToolCall, ToolResult, UserItem
from protocol.usage import Usage

_BYTES_PER_TOKEN = 4
_MOST_CHUNKS = 400
# Above so many bytes, the work takes longer than a loop should be held up.
_THREAD_ABOVE = 64_000

_encode = msgspec.json.encode


class OfflineClient:
    """An LLMClient that understands plain requests and nothing else, in the same way every time.

    It turns them into calls of the tools that the request offers, one after another, and answers from the
    results. It reads how far it is from the history, so one client serves any number of pods. Usage is an
    estimate: a quarter of the bytes of texts, calls and tools.
    """

    model = "offline"

    def __repr__(self) -> str:
        return "<OfflineClient>"

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        """Answer ``request`` in chunks of at least a word; the loop gets its turn between two of them."""
        size = _size(request)
        if size > _THREAD_ABOVE:
            step = await in_thread(next_step, request)
        else:
            step = next_step(request)
        room = None if request.max_tokens is None else request.max_tokens * _BYTES_PER_TOKEN
        written = 0
        reason: StopReason = "end_turn" if isinstance(step, str) else "tool_use"
        for block in _blocks(step, len(request.items)):
            written += len(block.text.encode()) if isinstance(block, TextChunk | CallChunk) else 0
            if room is not None and written > room:
                reason = "max_tokens"
                break
            yield block
            await asyncio.sleep(0)
        yield UsageReport(Usage(_tokens(size), _tokens(written)))
        yield End(reason, self.model)


def next_step(request: Request) -> Wanted | str:
    """What the model does next: a call with a few words, or its answer. Pure."""
    start, asked, done = current(request.items)
    context = OfflineContext({spec.name: spec for spec in request.tools}, request.items, start)
    work = work_asked(context, request.system)
    if work is not None:
        step = follow(work, context, done)
        return step.text if isinstance(step, Answer) else step
    intents = [intent for text in asked for intent in understood(text, context.tools)]
    said = play(intents, context, done) if intents else "Nothing is asked of me."
    if isinstance(said, str) and request.output_schema is not None:
        return in_form(request.output_schema, said)
    return said


def current(items: Sequence[Item]) -> tuple[int, list[str], list[tuple[ToolCall, ToolResult]]]:
    """Where this run begins, what was asked in it, and the calls made for that with their results.

    The run is everything since its last answer without calls; it has several user items if it was steered.
    What was asked before an interrupted call no longer counts once the user has said something new. If a
    compaction has removed the user's words, they are in its summary.
    """
    start = next((n for n in range(len(items), 0, -1) if _is_answer(items[n - 1])), 0)
    asked: list[str] = []
    calls: dict[str, ToolCall] = {}
    done: list[tuple[ToolCall, ToolResult]] = []
    for item in items[start:]:
        if isinstance(item, UserItem):
            if done and (was_interrupted(done[-1][1]) or was_not_run(done[-1][1])):
                asked, done = [], []
            asked.append(item.text)
        elif isinstance(item, AssistantItem):
            calls.update((call.id, call) for call in item.calls)
        elif isinstance(item, ToolResult) and item.call_id in calls:
            done.append((calls[item.call_id], item))
        elif isinstance(item, SystemItem) and not asked and item.text.startswith(COMPACTED):
            _, found, rest = item.text.rpartition(OPEN_REQUEST)
            asked += [rest.partition("\n")[0].strip()] if found else []
    return start, asked, done


def _is_answer(item: Item) -> bool:
    return isinstance(item, AssistantItem) and not item.calls


def _blocks(step: Wanted | str, position: int) -> Iterator[TextChunk | CallStart | CallChunk | CallEnd]:
    if isinstance(step, str):
        yield from (TextChunk(piece) for piece in _pieces(step))
        return
    yield from (TextChunk(piece) for piece in _pieces(step.saying))
    arguments = _encode(step.arguments).decode()
    # The same request gets the same id, and no two calls of one history do.
    seed = f"{position} {step.name} {arguments}".encode()
    yield CallStart(1, f"call_{hashlib.sha256(seed).hexdigest()[:16]}", step.name)
    yield CallChunk(1, arguments)
    yield CallEnd(1)


def _pieces(text: str) -> Iterator[str]:
    """Split a text into words, or groups of words if it is long."""
    words = text.split(" ")
    step = max(1, len(words) // _MOST_CHUNKS)
    for n in range(0, len(words), step):
        piece = " ".join(words[n : n + step])
        yield piece if n == 0 else f" {piece}"


def _tokens(size: int) -> int:
    return -(-size // _BYTES_PER_TOKEN)


def _size(request: Request) -> int:
    """The bytes of everything that a model would have to read."""
    size = len((request.system or "").encode()) + sum(len(_encode(spec)) for spec in request.tools)
    for item in request.items:
        text = item.text
        size += len(text) if text.isascii() else len(text.encode())
        if isinstance(item, AssistantItem):
            size += sum(len(call.name) + len(_encode(call.arguments)) for call in item.calls)
    return size
