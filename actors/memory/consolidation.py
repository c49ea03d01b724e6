"""``ConsolidationActor``: merges staged findings into the notes of lasting memory, detached from its pod."""

from __future__ import annotations

import contextlib
from functools import cache, partial
from typing import Annotated

import pykka
from msgspec import Meta, Struct
from msgspec.structs import replace

from actors.compaction.policy import notes_budget
from actors.memory.batch import Batch, Consolidation
from actors.memory.helper_agent import HelperActor, HelperAgent, MemoryTask, Reminder
from actors.memory.helper_words import notes_in_words, says_nothing
from actors.memory.messages import Consolidate, Consolidated, Consolidating
from actors.memory.notes import Kind, render
from actors.memory.notes_draft import (
    CONSOLIDATOR_PROMPT,
    NUDGE_NOTHING_WRITTEN,
    NotesDraft,
    consolidator_request,
)
from actors.memory.notes_folder import NotesFolder
from actors.runtime.in_thread import begin_in_thread, wait_to_the_end
from actors.sessions.disk import store_error
from actors.tools.base import ToolContext, tool
from actors.tools.toolbox import Toolbox
from protocol.errors import PodError, ToolError

#: The most requests of one consolidation.
MOST_STEPS = 32


def _clear(error: Exception) -> Exception:
    """The error for a file's failure that says what it means and what to do; any other error as it is."""
    if isinstance(error, OSError) and error.filename is not None:
        return store_error(error, error.filename)
    return error


class NoteEditor(Struct, frozen=True):
    """What the consolidator's tools work on: a draft in memory, which is committed to the disk as a whole."""

    memory: NotesFolder
    draft: NotesDraft


@tool
async def write_memory(kind: Kind, title: str, text: str, ctx: ToolContext[NoteEditor]) -> str:
    """Write a note, or add what is new to the note of that kind and title; returns its path."""
    return ctx.deps.draft.write(kind, title, text)


@tool
async def replace_memory(path: str, text: str, ctx: ToolContext[NoteEditor]) -> str:
    """Give a note other words, instead of all it says now."""
    return ctx.deps.draft.rewrite(path, text)


@tool
async def delete_memory(path: str, merged_into: str, ctx: ToolContext[NoteEditor]) -> str:
    """Delete a note whose words were written into another one before."""
    ctx.deps.draft.drop(path, merged_into)
    return "deleted"


@tool(concurrency="read_only")
async def read_memory(path: str, ctx: ToolContext[NoteEditor]) -> str:
    """Read a note."""
    return render(ctx.deps.draft.read(path))


@tool(concurrency="read_only")
def search_memory(
    query: str, ctx: ToolContext[NoteEditor], limit: Annotated[int, Meta(ge=1, le=20)] = 5
) -> str:
    """Find notes by words that are in them."""
    from actors.memory.note_index import search  # noqa: PLC0415 - paid for by whoever searches

    hits = search(ctx.deps.memory, query, limit=limit + 20)
    lines = [f"- {hit.path}: {hit.title}" for hit in hits if not hit.staged]
    return "\n".join(lines[:limit]) or "nothing found"


@cache
def _toolbox() -> Toolbox:
    return Toolbox([write_memory, replace_memory, delete_memory, read_memory, search_memory])


class ConsolidationActor(HelperActor):
    """Does one consolidation for each message, in threads, beside everything else; the pod
    publishes its end.
    """

    async def on_receive(self, message: Consolidate) -> None:
        manifest = message.manifest
        work = Consolidation(
            message.memory,
            manifest.memory,
            message.context(None).pod,
            context_window=manifest.model.context_window,
        )
        try:
            ended = await self._consolidate(message, work)
            await wait_to_the_end(begin_in_thread(work.release))
        except Exception as error:  # noqa: BLE001 - the pod publishes it
            ended = Consolidated(error=_clear(error))
        finally:
            work.release()
        message.report(replace(ended, alerts=tuple(work.alerts)))

    async def _consolidate(self, job: Consolidate, work: Consolidation) -> Consolidated:
        batch = await wait_to_the_end(begin_in_thread(work.begin, automatic=job.automatic))
        if batch is None:
            return Consolidated()
        if not await _may_begin(job, batch):
            await wait_to_the_end(begin_in_thread(work.withdraw))
            return Consolidated()
        left, mechanical = 0, batch.mechanical
        try:
            if not batch.mechanical:
                await self._write(job, batch)
                mechanical = not batch.draft.written
                left = await wait_to_the_end(begin_in_thread(batch.complete))
            notes = await wait_to_the_end(begin_in_thread(work.commit, batch))
        except Exception as error:  # noqa: BLE001 - the pod publishes it
            await wait_to_the_end(begin_in_thread(work.withdraw))
            return Consolidated(len(batch.files), error=_clear(error))
        return Consolidated(len(batch.files), notes, mechanical, left)

    async def _write(self, job: Consolidate, batch: Batch) -> None:
        """Have the model write, with its tools or in words; if these contain no notes, the findings are kept
        as they are. Raises PodError if it neither wrote nor said anything, or did not finish.
        """
        editor = NoteEditor(job.memory, batch.draft)
        agent = HelperAgent(
            job.ask,
            job.manifest.model.model_id,
            _toolbox(),
            partial(job.context, editor),
            prompt=CONSOLIDATOR_PROMPT,
            max_tokens=notes_budget(job.manifest.model.context_window),
            most_steps=MOST_STEPS,
        )
        reminder = Reminder(NUDGE_NOTHING_WRITTEN, write_memory.name)
        task = MemoryTask(lambda: batch.draft.written, reminder)
        request = consolidator_request(batch.findings, batch.draft.listing())
        words = await self.ask_model(task.run_with(agent, request), job.caller)
        if words is None:
            raise PodError(
                f"the consolidator did not finish within {MOST_STEPS} requests; no notes were written"
            )
        if batch.draft.written:
            return
        if says_nothing(words):
            raise PodError("the consolidator wrote no notes; everything staged is kept")
        for piece in notes_in_words(words):
            with contextlib.suppress(ToolError):  # as its tool would have reported it
                batch.draft.write(piece.kind, piece.title, piece.text)


async def _may_begin(job: Consolidate, batch: Batch) -> bool:
    try:
        return await job.begin(Consolidating(len(batch.files), batch.size))
    except pykka.ActorDeadError:  # the pod has ended meanwhile
        return False
