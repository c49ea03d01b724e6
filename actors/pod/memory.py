"""The extraction actor: detached from its pod, it reads what is new in a history and notes what matters."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import pykka

from actors.compaction.extract import (
    EXTRACTOR_PROMPT,
    Attempt,
    Decision,
    Discussion,
    Extracted,
    UserRequest,
    extractor_request,
    portion,
)
from actors.compaction.policy import LEAST_SUMMARISER_TOKENS
from actors.llm.base import Request
from actors.pod.spending import Spending
from actors.runtime.actor import AsyncActor
from actors.runtime.future import AsyncFuture
from actors.runtime.redact import redacted
from actors.sessions.head import SessionHead, new_session_id
from actors.tools.base import Toolbox, ToolContext, tool
from protocol.errors import ModelError
from protocol.items import Item, UserItem

#: Requests that one extraction may need.
_MOST_STEPS = 8


class Proposal(NamedTuple):
    """To the pod: of that session, from ``start`` on, items are read up to ``end``."""

    session_id: str
    start: int | None
    end: int
    staged: int
    error: BaseException | None = None


class Extract(NamedTuple):
    """To the extraction actor: read what the head has not had read yet, in about ``budget`` tokens."""

    head: SessionHead
    budget: int
    spending: Spending
    model: str
    ctx: ToolContext
    folder: Path | None
    propose: Callable[[Proposal], AsyncFuture[bool]]


class Staged(msgspec.Struct, frozen=True):
    """What one extraction found, as its file in the staging folder keeps it, and where from."""

    session_id: str
    start: int
    end: int
    found: Extracted


class ExtractionActor(AsyncActor):
    """Does one extraction a message: reads, stages what it found, proposes the new pointer.

    The pod alone writes its log; a proposal that comes too late is refused, and what was staged for it
    is taken away again.
    """

    async def on_receive(self, message: Extract) -> None:
        head = message.head
        # Session, pointer and history are taken together, between two awaits.
        session_id, start, items = head.session_id, head.pointer, head.items[head.pointer or 0 :]
        staged: Path | None = None
        try:
            found, end = await _read(message, items, start or 0)
            if len(found):
                record = Staged(session_id, start or 0, end, found)
                staged = await asyncio.to_thread(_stage, message.folder, record)
            proposal = Proposal(session_id, start, end, len(found))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a client throws, the pod tells of it
            proposal = Proposal(session_id, start, start or 0, 0, error)
        try:
            accepted = await message.propose(proposal)
        except pykka.ActorDeadError:  # the pod has stopped meanwhile: it is read again when it is resumed
            accepted = False
        if staged is not None and not accepted:
            await asyncio.to_thread(staged.unlink, missing_ok=True)


async def _read(job: Extract, items: list[Item], start: int) -> tuple[Extracted, int]:
    """What is found in the first portion of ``items`` and up to where that goes. Where the model has no
    room for it, a smaller one is read; the pod has the rest read by another extraction.
    """
    budget = job.budget
    while True:
        count = await asyncio.to_thread(portion, items, budget)
        try:
            return await _found(job, items[:count], budget), start + count
        except ModelError as error:
            if error.kind != "context_overflow" or budget <= LEAST_SUMMARISER_TOKENS:
                raise
            budget = max(LEAST_SUMMARISER_TOKENS, budget // 2)


async def _found(job: Extract, items: list[Item], budget: int) -> Extracted:
    """What the worker notes; nothing where it calls no tool, which is an answer as well."""
    desk = _Desk()
    toolbox = Toolbox([tool(desk.write_extracted)])
    request = await asyncio.to_thread(extractor_request, items, budget)
    told: list[Item] = [UserItem.of(request)]
    for _ in range(_MOST_STEPS):
        answer = await job.spending.ask(
            Request(items=told, system=EXTRACTOR_PROMPT, tools=toolbox.specs, model=job.model, scratch={})
        )
        told.append(answer.item)
        if not answer.item.calls:
            break
        told += [await toolbox.run(call, job.ctx) for call in answer.item.calls]
    return desk.found


class _Desk:
    def __init__(self) -> None:
        self.found = Extracted()

    async def write_extracted(
        self,
        decisions: tuple[Decision, ...] = (),
        discussions: tuple[Discussion, ...] = (),
        attempts: tuple[Attempt, ...] = (),
        requests: tuple[UserRequest, ...] = (),
    ) -> str:
        """Note what will still matter; any of the lists may be empty."""
        self.found = Extracted(decisions, discussions, attempts, requests)
        return "noted"


def _stage(folder: Path | None, record: Staged) -> Path | None:
    """Keep what was found as a file of its owner alone, with secrets taken out, whole or not at all."""
    if folder is None:
        return None
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{new_session_id()}.json"
    part = path.with_suffix(".part")
    text = redacted(msgspec.json.encode(record).decode())
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    part.rename(path)
    return path
