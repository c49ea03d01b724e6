"""What a sub-agent has said, read from its session, and the words that report its end to its parent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from msgspec import Struct

from actors.pod.session.past_events import entries_after
from actors.pod.session.restore import tip
from actors.sessions.answers import settled
from actors.sessions.head import short_id
from actors.sessions.store import SessionStore
from protocol.entries import StoredEntry
from protocol.errors import SessionNotFound
from protocol.events import AssistantMessage, ChildEnded
from protocol.items import UserItem
from protocol.wire import decode_entry

_PAGE = 200
#: Characters of a last answer that its parent gets; the rest can be read.
_SHOWN = 8_000


class Said(Struct, frozen=True):
    """What was said, and the number of the last entry read."""

    texts: list[str]
    next: int


async def answers_after(store: SessionStore, session_id: str, after: int) -> Said:
    """The answers of a sub-agent in the entries numbered above ``after``, across all its compactions, which
    continue the numbering.
    """
    try:
        session_id = await tip(store, session_id)
        through = (await settled(store.info(session_id))).head.seq
    except SessionNotFound:
        return Said([], after)
    texts: list[str] = []
    while page := await entries_after(store, session_id, after, through, _PAGE):
        texts += _texts(page)
        after = page[-1].seq
    return Said(texts, after)


async def last_answer(store: SessionStore, session_id: str) -> str:
    """A sub-agent's last answer; empty if it has given none."""
    try:
        session_id = await tip(store, session_id)
        through = (await settled(store.info(session_id))).head.seq
    except SessionNotFound:
        return ""
    while through > 0:
        after = max(0, through - _PAGE)
        page = [
            each
            for each in await settled(store.read(session_id, after=after, limit=_PAGE))
            if each.seq <= through
        ]
        if texts := list(_texts(page)):
            return texts[-1]
        if not page or page[0].seq > after + 1:
            break
        through = after
    return ""


def _texts(page: Sequence[StoredEntry]) -> Iterator[str]:
    for entry in page:
        if b'"AssistantMessage"' in entry.body:  # spares the others the decoding
            decoded = decode_entry(entry.body)
            if isinstance(decoded, AssistantMessage) and decoded.item.text:
                yield decoded.item.text


def end_words(event: ChildEnded, last: str) -> str:
    """The words that report an end to a parent's model."""
    why = "" if event.error is None else f": {event.error}"
    said = last if len(last) <= _SHOWN else f"{last[:_SHOWN]}… [cut; read_pod_output has all of it]"
    return "\n".join(
        part for part in (f"{_mark(event)}: {event.outcome.replace('_', ' ')}{why}]", said) if part
    )


def reported_in(unreported: Iterable[ChildEnded], items: Sequence[Any]) -> list[ChildEnded]:
    """The sub-agents whose end a history reports."""
    words = [
        item.text for item in items if isinstance(item, UserItem) and item.text.startswith("[sub-agent ")
    ]
    return [each for each in unreported if any(text.startswith(_mark(each)) for text in words)]


def _mark(event: ChildEnded) -> str:
    return f"[sub-agent {event.name} ({short_id(event.child_session)}) has ended"
