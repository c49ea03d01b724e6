"""``ExtractionActor``: reads what is new in a history and stages what will matter later, detached from its
pod.
"""

from __future__ import annotations

import contextlib
from functools import cache, partial
from pathlib import Path

import pykka

from actors.compaction.policy import LEAST_SUMMARISER_TOKENS
from actors.memory.findings import (
    EXTRACTOR_PROMPT,
    Attempt,
    Decision,
    Discussion,
    Extracted,
    UserRequest,
    extractor_request,
    portion,
)
from actors.memory.helper_agent import HelperActor, HelperAgent, MemoryTask
from actors.memory.helper_words import extracted_in_words
from actors.memory.messages import Extract, Proposal
from actors.memory.staging import Staged, earlier_readings, stage
from actors.runtime.in_thread import in_thread
from actors.sessions.disk import store_error
from actors.tools.base import ToolContext, tool
from actors.tools.toolbox import Toolbox
from protocol.errors import ModelError, PodError, SessionError, WireError
from protocol.items import Item

#: The most requests of one extraction.
_MOST_STEPS = 8


class ExtractionDraft:
    """What the extractor's tool works on: the findings that it was called with."""

    def __init__(self) -> None:
        self.found = Extracted()
        self.called = False


@tool
async def write_extracted(
    ctx: ToolContext[ExtractionDraft],
    decisions: tuple[Decision, ...] = (),
    discussions: tuple[Discussion, ...] = (),
    attempts: tuple[Attempt, ...] = (),
    requests: tuple[UserRequest, ...] = (),
) -> str:
    """Note what will still matter; any of the lists may be empty."""
    ctx.deps.found = Extracted(decisions, discussions, attempts, requests)
    ctx.deps.called = True
    return "noted"


@cache
def _toolbox() -> Toolbox:
    return Toolbox([write_extracted])


class ExtractionActor(HelperActor):
    """Does one extraction for each message: reads, stages what it found, and proposes the new pointer.

    Only the pod writes its log. A proposal that comes too late is refused, and what was staged for it is
    deleted.
    """

    async def on_receive(self, message: Extract) -> None:
        head = message.head
        # Session, pointer and history are read together, without an await in between.
        session_id, start, items = head.session_id, head.pointer, head.items[head.pointer or 0 :]
        staged: Path | None = None
        try:
            found, end = await self.ask_model(_read(message, items, start or 0), message.caller)
            if len(found):
                record = Staged(session_id, start or 0, end, found)
                staged = await in_thread(_stage, message.folder, record)
            proposal = Proposal(session_id, start, end, len(found), items[end - (start or 0) - 1])
        except Exception as error:  # noqa: BLE001 - whatever a client raises, the pod publishes it
            proposal = Proposal(session_id, start, start or 0, 0, error=error)
        try:
            accepted = await message.propose(proposal)
        except pykka.ActorDeadError:  # the pod has stopped meanwhile: this is read again when it resumes
            accepted = False
        except SessionError:  # its end may be durable or not: the staged file may be all that is left
            return
        if staged is not None:
            await in_thread(_put_away, staged, accepted=accepted)


def _stage(folder: Path, record: Staged) -> Path:
    """``stage``, with an error that names the folder. Raises StoreError."""
    try:
        return stage(folder, record)
    except OSError as error:
        raise store_error(error, folder) from error


def _put_away(staged: Path, *, accepted: bool) -> None:
    """Delete a staged file that was not accepted. One that was accepted replaces an earlier reading of the
    same stretch, which was not.
    """
    if not accepted:
        staged.unlink(missing_ok=True)
        return
    with contextlib.suppress(OSError, WireError):  # a consolidation skips the earlier one too
        for earlier in earlier_readings(staged):
            earlier.unlink(missing_ok=True)


async def _read(job: Extract, items: list[Item], start: int) -> tuple[Extracted, int]:
    """What is found in the first portion of ``items``, and where that ends. If it does not fit the model's
    context, a smaller portion is read; the pod has another extraction read the rest.
    """
    budget = job.budget
    while True:
        count = await in_thread(portion, items, budget)
        try:
            return await _find(job, items[:count], budget), start + count
        except ModelError as error:
            if error.kind != "context_overflow" or budget <= LEAST_SUMMARISER_TOKENS:
                raise
            budget = max(LEAST_SUMMARISER_TOKENS, budget // 2)


async def _find(job: Extract, items: list[Item], budget: int) -> Extracted:
    """What the extractor notes with its tool, or says in words, which may be that there is nothing. Raises
    PodError if it did neither before its last step.
    """
    draft = ExtractionDraft()
    agent = HelperAgent(
        job.ask,
        job.model,
        _toolbox(),
        partial(job.context, draft),
        prompt=EXTRACTOR_PROMPT,
        max_tokens=job.max_tokens,
        most_steps=_MOST_STEPS,
    )
    request = await in_thread(extractor_request, items, budget)
    task = MemoryTask(lambda: draft.called)
    words = await task.run_with(agent, request, forced=write_extracted.name)
    if words is None and not draft.called:
        raise PodError(
            f"the extractor did not finish within {_MOST_STEPS} requests; no findings were written"
        )
    return extracted_in_words(words) if words and not draft.called else draft.found
