"""Forks: a new session that continues from an entry of another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import NamedTuple

from actors.pod.resources import PodResources
from actors.pod.session.restore import activities_left, restore
from actors.sessions.answers import durable, settled
from actors.sessions.branch import stage_branch
from actors.sessions.head import SessionHead, new_session_id
from actors.sessions.log import SessionLog
from protocol.entries import Head, Parent
from protocol.errors import SessionError, UnknownEntry
from protocol.events import Activity, AssistantMessage
from protocol.foreign import shown
from protocol.items import Item
from protocol.wire import decode_entry

#: Entries read at a time where an answer is looked for.
_PAGE = 50


class Branch(NamedTuple):
    """The new session and the hex hash of the entry it continues from."""

    session_id: str
    at_hash: str


async def branch_off(resources: PodResources, at: str | None) -> Branch:
    """Open a session that continues from the last durable entry, or from the pod's entry with hash ``at``
    (hex). Raises UnknownEntry, StoreError; the pod's own session is left as it was.
    """
    log = resources.log  # what a memory job has just recorded stands at the head already, and may be refused
    session_id, last = log.durable_session, Head(log.durable_seq, log.durable_hash)
    if at is None or at == last.hash.hex():
        return await open_branch(
            resources, session_id, last, log.durable_items(), log.durable_pointer, log.durable_open
        )
    try:
        wanted = bytes.fromhex(at)
    except (TypeError, ValueError) as error:
        raise UnknownEntry(f"not the hash of an entry: {shown(at)}", hint="write it in hex") from error
    state, last = await restore(resources.template.store, session_id, wanted)
    left = await activities_left(resources.template.store, session_id, state), state.open_run
    return await open_branch(resources, session_id, last, state.items, state.pointer, left)


async def before_open_answer(resources: PodResources) -> str:
    """The hex hash of the entry before the answer whose calls wait, as ``branch_off`` takes it. Raises
    UnknownEntry if that answer is in an earlier session.
    """
    store, log = resources.template.store, resources.log
    session_id, through = log.durable_session, log.durable_seq
    while through > 0:
        after = max(through - _PAGE, 0)
        page = [
            each
            for each in await settled(store.read(session_id, after=after, limit=_PAGE))
            if each.seq <= through
        ]
        answers = [n for n, each in enumerate(page) if b'"AssistantMessage"' in each.body]
        for number in reversed(answers):
            if not isinstance(decode_entry(page[number].body), AssistantMessage):
                continue
            if number:
                return page[number - 1].hash.hex()
            before = await settled(store.read(session_id, after=max(after - 1, 0), limit=1))
            if before and before[0].seq < page[number].seq:
                return before[0].hash.hex()
        if not page or page[0].seq > after + 1:
            break
        through = after
    raise UnknownEntry(
        f"session {session_id} has no entry before the answer whose calls wait for approval",
        hint="approve or deny the calls first, or give the hash of an entry",
    )


async def open_branch(
    resources: PodResources,
    session_id: str,
    last: Head,
    items: list[Item],
    pointer: int | None,
    left: tuple[Sequence[Activity], str | None],
) -> Branch:
    """Make the new session, with the items it takes over, in one transaction; activities and a run that were
    ``left`` open are closed in it. If this is cancelled, no session is left behind.
    """
    parent = Parent("forked_from", session_id, last.hash.hex(), last.seq)
    log = SessionLog(
        resources.template.store, resources.name, SessionHead(new_session_id(), last.seq), _nobody_listens
    )
    for _ in stage_branch(log, resources.template.opening, parent, items, pointer, left):
        await asyncio.sleep(0)
    pending = log.create(parent, claim=False)
    if pending is not None:
        kept = durable(pending)
        try:
            await asyncio.shield(kept)
        except asyncio.CancelledError:
            await asyncio.wait([kept])
            if not kept.cancelled() and kept.exception() is None:
                await drop_branch(resources, log.head.session_id)
            raise
    return Branch(log.head.session_id, parent.at_hash)


async def drop_branch(resources: PodResources, session_id: str) -> None:
    """Delete a new branch that nobody knows of; if the store refuses that too, it stays."""
    with contextlib.suppress(SessionError):
        await settled(resources.template.store.delete(session_id))


def _nobody_listens(*_: object) -> None:
    """A branch has no pod yet, so there is nobody to notify."""
