"""The commands of a chat that change its session: /clear, /undo, /fork, /compact, /resume."""

from __future__ import annotations

from actors.cli.chat.lines import Asker
from actors.cli.chat.talk import Talk
from actors.cli.display.format import cut
from actors.pod.handle import Pod
from actors.sessions.answers import settled
from actors.sessions.head import new_session_id, short_id
from actors.sessions.repair import fork as branch_off
from actors.sessions.store import SessionStore
from protocol.entries import SessionOpened, StoredEntry
from protocol.errors import InvalidInput, PodError
from protocol.events import CompactDone, RunStart, UserMessage
from protocol.items import TextPart
from protocol.lifecycle import PodState
from protocol.wire import decode_entry

#: Entries read at a time.
_PAGE = 200
#: How an entry begins that begins a run.
_START = b'{"type":"RunStart"'


async def clear(_: str, talk: Talk, asker: Asker) -> None:  # noqa: ARG001
    """Begin a new session with the same pod."""
    before, stays = talk.current.described.session_id, talk.current.is_used
    described = await talk.current.become(None)
    talk.joins.clear()
    said = f"; the previous one is kept: {short_id(before)}" if stays else ""
    talk.terminal.note(f"session {described.session_id}{said}")


async def fork(_: str, talk: Talk, asker: Asker) -> None:  # noqa: ARG001
    """Go on in a copy of the session."""
    before = talk.current.described.session_id
    talk.current.use()
    described = await talk.current.become(await talk.current.pod.fork())
    talk.terminal.note(f"continues in session {described.session_id}; {short_id(before)} is unchanged")


async def undo(_: str, talk: Talk, asker: Asker) -> None:  # noqa: ARG001
    """Go on in a session that ends before the last turn, whose words are at the prompt again."""
    current = talk.current
    if (await current.look()).state is PodState.PAUSED:
        raise PodError("the last run was interrupted", hint="continue it with /resume; then it can be undone")
    found = await _last_turn(current.system.store, current.described.session_id)
    if found is None:
        raise PodError("this session has no turn to undo, or it was compacted since")
    session_id, at, words = found
    before = current.described.session_id
    new = branch_off(current.system.store, session_id, new_session_id(), at=at)
    await current.become(new.session_id)
    talk.draft = words
    talk.terminal.note(f"took back: {cut(words, 60)}")
    talk.terminal.note(f"files are unchanged, and so is session {short_id(before)}")


async def _last_turn(store: SessionStore, session_id: str) -> tuple[str, str, str] | None:
    """The last turn that a person's words began: its session, the hash of the entry before it, and the words.
    None where the history does not reach back to one.
    """
    through: int | None = None
    while True:
        entries = [
            entry for entry in await _entries(store, session_id) if through is None or entry.seq <= through
        ]
        for number in range(len(entries) - 1, 0, -1):
            if not entries[number].body.startswith(_START):
                continue
            start = decode_entry(entries[number].body)
            if isinstance(start, RunStart) and start.reason != "resume":
                return session_id, entries[number - 1].hash.hex(), _words_of(entries[number + 1 :])
        opened = decode_entry(entries[0].body) if entries else None
        parent = opened.parent if isinstance(opened, SessionOpened) else None
        if parent is None or parent.kind != "forked_from":
            return None
        session_id, through = parent.session_id, parent.at_seq


async def _entries(store: SessionStore, session_id: str) -> list[StoredEntry]:
    entries: list[StoredEntry] = []
    while page := await settled(store.read(session_id, after=entries[-1].seq if entries else 0, limit=_PAGE)):
        entries += page
    return entries


def _words_of(entries: list[StoredEntry]) -> str:
    """The words that a run began with, without what went along with them."""
    for stored in entries:
        entry = decode_entry(stored.body)
        if isinstance(entry, UserMessage):
            first = next((part for part in entry.item.content if isinstance(part, TextPart)), None)
            return "" if first is None else first.text
    return ""


async def compact(rest: str, talk: Talk, asker: Asker) -> None:  # noqa: ARG001
    """Fold the older part of the history into a summary."""
    if rest and not rest.isdecimal():
        raise InvalidInput(f"/compact takes the number of tokens to keep unchanged, not {rest!r}")
    pod = talk.current.pod
    talk.current.use()
    with pod.subscribe(CompactDone) as events:
        talk.terminal.busy("compacting…")
        try:
            await pod.compact(int(rest) if rest else None)
        finally:
            talk.terminal.idle()
        done = next((each for each in events.drain() if isinstance(each, CompactDone)), None)
    described = await talk.current.look()
    sizes = "" if done is None else f"about {done.before:,} tokens before, {done.after:,} after; "
    talk.terminal.note(f"{sizes}continues in session {described.session_id}")


async def resume(_: str, talk: Talk, asker: Asker) -> None:
    """Go on with a run that was interrupted."""
    if (await talk.current.look()).state is PodState.PAUSED:
        await talk.turn(Pod.resume, asker)
    else:
        talk.terminal.note("no run was interrupted")
