"""What a person knows a session by: its task, its folder, its model, and what it cost."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import msgspec

from actors.cli.store_reader import Reading
from actors.pod.models import label
from actors.sessions.replay import Replayed
from protocol.agents import spec_of
from protocol.entries import SessionOpened, StoredEntry
from protocol.errors import SessionError, WireError
from protocol.events import PodStarted
from protocol.manifest import PodManifest
from protocol.wire import decode_entry

#: How an entry begins that says on which model its pod goes on, and what one that cost something holds.
_STARTED, _COST = b'{"type":"PodStarted"', b'"cost":'


class Summary(NamedTuple):
    """A session in short. ``cost`` is in US dollars, None where nobody knows it; texts are empty where
    nothing is known.
    """

    task: str = ""
    folder: str = ""
    model: str = ""
    cost: float | None = None


def summary_of(session_id: str, reading: Reading) -> Summary:
    """The summary of a session; as much as can be read of a damaged one."""
    task = folder = model = ""
    costs = Replayed()
    with suppress(SessionError, WireError, msgspec.DecodeError):
        task = reading.task(session_id)
        for stored in reading.stored(session_id):
            if not folder and not model:
                folder, model = _opened(stored)
            if stored.body.startswith(_STARTED):
                started = decode_entry(stored.body)
                model = started.model if isinstance(started, PodStarted) else model
            elif _COST in stored.body:  # nearly all entries are spared the decoding
                costs.read((stored,))
    return Summary(task, folder, model, costs.cost)


def _opened(stored: StoredEntry) -> tuple[str, str]:
    """The folder and the model that a session was opened with."""
    opened = decode_entry(stored.body)
    if not isinstance(opened, SessionOpened):
        return "", ""
    if (spec := spec_of(opened.manifest)) is not None:
        return spec.cwd, spec.runner if isinstance(spec.runner, str) else " ".join(spec.runner)
    manifest = msgspec.json.decode(opened.manifest, type=PodManifest)
    return manifest.pod.pwd, label(manifest.model)
