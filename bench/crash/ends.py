"""Finds activities without an end after every session has been continued, and staged files that no log
mentions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from actors.memory.staging import Staged
from actors.pod.session.restore import activities_left
from actors.sessions.answers import wait
from actors.sessions.replay import replay
from actors.sessions.store import SessionStore
from protocol.events import ExtractDone
from protocol.wire import decode_entry


def unended(store: SessionStore, tips: list[str]) -> Iterator[str]:
    """Runs, compactions, extractions and consolidations that began in a session and ended nowhere."""
    for session_id in tips:
        state = replay(wait(store.read(session_id)))
        for activity in wait(activities_left(store, session_id, state)):
            yield f"no end: the {activity} of {session_id}"
        if state.open_run is not None:
            yield f"no end: run {state.open_run} of {session_id}"


def unclaimed(store: SessionStore, memory: Path) -> Iterator[str]:
    """Staged files that no finished extraction has recorded. A refused extraction must delete its own.

    (One whose process was killed may leave its file, which is consolidated like any other.)
    """
    reported = {
        (event.session_id, event.pointer)
        for info in wait(store.sessions())
        for event in map(decode_entry, (entry.body for entry in wait(store.read(info.session_id))))
        if isinstance(event, ExtractDone)
    }
    for path in memory.glob("staging/*.json"):
        staged = msgspec.json.decode(path.read_bytes(), type=Staged)
        if (staged.session_id, staged.end) not in reported:
            yield f"left over: {path.name} of {staged.source}, which no ExtractDone tells of"
