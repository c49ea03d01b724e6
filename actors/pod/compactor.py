"""The compaction worker: a little model-and-tool loop that writes the summary of a history."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from actors.compaction import policy
from actors.compaction.compose import Composed, Reference, RequiredFile, Split, compose, split, summary_in
from actors.compaction.cut import cut
from actors.compaction.ladder import ladder
from actors.compaction.policy import Limits
from actors.compaction.summary import (
    NO_SUMMARY,
    NUDGE_NO_FILE,
    NUDGE_NO_SUMMARY,
    SUMMARISER_PROMPT,
    extractive_summary,
    summariser_request,
    with_words,
)
from actors.compaction.tokens import text_tokens
from actors.compaction.transcript import entries, recent_files
from actors.compaction.words import words_of
from actors.llm.base import Request
from actors.llm.retry import ask
from actors.pod.context import Context
from actors.pod.parts import PodParts
from actors.pod.tasks import TaskStore
from actors.tools.base import Toolbox, ToolContext, tool
from actors.tools.files import read_file
from protocol.errors import CompactionFailed, ModelError, ToolError
from protocol.events import CompactReason
from protocol.items import Item, UserItem

#: What the texts of all required files may take together, in tokens.
REQUIRED_TOKENS = 8000
#: What a summary may take, in tokens, and how many requests one reading of a summariser may need.
SUMMARY_TOKENS = 4000
MOST_STEPS = 16


class Folding(NamedTuple):
    """What is to be folded: the history, what it weighs, and how much of its end shall stay."""

    items: list[Item]
    context: Context
    limits: Limits
    retained: int
    occupancy: int
    reason: CompactReason


class _Desk:
    """What the summariser has before it: what it wrote, which files it requires, where it points to."""

    def __init__(self, ctx: ToolContext) -> None:
        self._ctx = ctx
        self._used = 0
        self.summary: str | None = None
        self.files: list[RequiredFile] = []
        self.references: list[Reference] = []

    async def write_summary(self, text: str) -> str:
        """Write the whole summary; a later call replaces an earlier one."""
        self.summary = text
        return "written"

    def mark_read_required(self, path: str) -> str:
        """Have the text of a file at hand after the compaction."""
        text = self._ctx.path(path).read_text(encoding="utf-8", errors="replace")
        needed = text_tokens(text)
        if self._used + needed > REQUIRED_TOKENS:
            left = REQUIRED_TOKENS - self._used
            raise ToolError(f"{path} takes {needed} tokens and only {left} are left for required files")
        self._used += needed
        self.files.append(RequiredFile(path, text))
        return f"{path} will be at hand ({needed} tokens)"

    async def add_reference(self, path: str, why: str = "") -> str:
        """Name a place that may have to be looked at again, and why."""
        self.references.append(Reference(path, why))
        return "noted"


async def fold(parts: PodParts, folding: Folding) -> Composed:
    """The history with its older part folded into a summary.

    Raises CompactionFailed, or what the client raises. Only where the summariser's own request does not
    fit its context is it given less to read, and in the end none at all: then the summary is extractive.
    """
    mid_turn = folding.reason in {"request_threshold", "overflow"}
    at = cut(folding.items, folding.context.since, folding.retained, keep_open_turn=mid_turn)
    halves = split(folding.items, at)
    words = words_of(halves.folded)
    room = policy.words_budget(folding.occupancy, folding.limits.context_window)
    snapshot = TaskStore.replayed(folding.items).snapshot()
    desk = _Desk(parts.tools.context(parts.name))
    summary = await _written(parts, folding, halves, desk, snapshot)
    if summary is None:
        summary = await asyncio.to_thread(extractive_summary, halves, budget=SUMMARY_TOKENS, words=room)
    else:
        summary = with_words(summary, words, room)
    composed = compose(summary, halves.kept, files=desk.files, references=desk.references, snapshot=snapshot)
    policy.check_shrunk(folding.reason, folding.occupancy, Context(composed.items).occupancy())
    return composed


async def _written(
    parts: PodParts, folding: Folding, halves: Split, desk: _Desk, snapshot: str
) -> str | None:
    """The summary by the model; None where even the least it can be given does not fit its context."""
    texts = await asyncio.to_thread(entries, halves.folded)
    budget = policy.summariser_budget(
        folding.limits.context_window, SUMMARY_TOKENS, text_tokens(SUMMARISER_PROMPT) + text_tokens(snapshot)
    )
    files = recent_files(halves.folded)
    for reading in ladder(texts, budget):
        earlier = summary_in(halves.folded)
        try:
            for part, text in enumerate(reading, 1):
                desk.summary = None
                request = summariser_request(
                    text, earlier=earlier, part=part, parts=len(reading), files=files, snapshot=snapshot
                )
                earlier = await _one(parts, desk, request, files)
        except ModelError as error:
            if error.kind != "context_overflow":
                raise
        else:
            return earlier
    return None


async def _one(parts: PodParts, desk: _Desk, request: str, files: list[str]) -> str:
    """What the summariser writes about one reading; it is reminded once of what it forgot."""
    may_read = bool(parts.manifest.scope.allow)
    toolbox = _tools(desk, may_read=may_read)
    items: list[Item] = [UserItem.of(request)]
    reminders = [NUDGE_NO_SUMMARY]
    if may_read and files:
        reminders.append(NUDGE_NO_FILE)
    for _ in range(MOST_STEPS):
        answer = await ask(parts.client, _request(parts, items, toolbox))
        items.append(answer.item)
        if answer.item.calls:
            items += [await toolbox.run(call, parts.tools.context(parts.name)) for call in answer.item.calls]
        elif desk.summary is None and NUDGE_NO_SUMMARY in reminders:
            reminders.clear()
            items.append(UserItem.of(NUDGE_NO_SUMMARY))
        elif desk.summary is not None and not desk.files and NUDGE_NO_FILE in reminders:
            reminders.clear()
            items.append(UserItem.of(NUDGE_NO_FILE))
        else:
            break
    if desk.summary is None:
        raise CompactionFailed(NO_SUMMARY)
    return desk.summary


def _request(parts: PodParts, items: list[Item], toolbox: Toolbox) -> Request:
    return Request(
        items=items,
        system=SUMMARISER_PROMPT,
        tools=toolbox.specs,
        model=parts.manifest.model.model_id,
        max_tokens=SUMMARY_TOKENS,
        scratch={},
    )


def _tools(desk: _Desk, *, may_read: bool) -> Toolbox:
    tools = [tool(desk.write_summary), tool(desk.add_reference)]
    if may_read:
        tools += [tool(desk.mark_read_required), read_file]
    return Toolbox(tools)
