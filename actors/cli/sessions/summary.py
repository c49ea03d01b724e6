"""What people recognise a session by: task, folder, model and cost, and what of it runs unconfined."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import msgspec

from actors.cli.sessions.store_reader import Reading
from actors.pod.client_factory import label
from actors.sessions.replay import Replayed
from actors.swarm.agents.history import POD_RUNNERS
from protocol.agents import spec_of
from protocol.entries import SessionOpened, StoredEntry
from protocol.errors import SessionError, WireError
from protocol.events import PodStarted
from protocol.manifest import PodManifest
from protocol.wire import decode_entry

#: Runners that start no program of others.
_OWN_RUNNERS = (*POD_RUNNERS, "local")
#: How an entry begins that says on which model its pod goes on, and what one that cost something holds.
_STARTED, _COST = b'{"type":"PodStarted"', b'"cost":'


class Summary(NamedTuple):
    """A session in short. ``cost`` is in US dollars, None where nobody knows it; texts are empty where
    nothing is known. ``unconfined`` are its MCP servers and, of an agent, the program of others that it is.
    """

    task: str = ""
    folder: str = ""
    model: str = ""
    cost: float | None = None
    unconfined: tuple[str, ...] = ()


def summary_of(session_id: str, reading: Reading) -> Summary:
    """The summary of a session; as much as can be read of a damaged one."""
    opened, task, model, costs = Summary(), "", "", Replayed()
    with suppress(SessionError, WireError, msgspec.DecodeError):
        task = reading.task(session_id)
        for stored in reading.stored(session_id):
            if opened == Summary():
                opened = _opened(stored)
                model = opened.model
            if stored.body.startswith(_STARTED):
                started = decode_entry(stored.body)
                model = started.model if isinstance(started, PodStarted) else model
            elif _COST in stored.body:  # nearly all entries are spared the decoding
                costs.read((stored,))
    return opened._replace(task=task, model=model, cost=costs.cost)


def _opened(stored: StoredEntry) -> Summary:
    """What a session was opened with."""
    opened = decode_entry(stored.body)
    if not isinstance(opened, SessionOpened):
        return Summary()
    if (spec := spec_of(opened.manifest)) is not None:
        runner = spec.runner if isinstance(spec.runner, str) else " ".join(spec.runner)
        is_foreign = not (spec.has_objects or spec.runner in _OWN_RUNNERS)
        return Summary(folder=spec.cwd, model=runner, unconfined=(runner,) if is_foreign else ())
    manifest = msgspec.json.decode(opened.manifest, type=PodManifest)
    servers = tuple(each.name for each in manifest.tools.mcp)
    return Summary(folder=manifest.pod.pwd, model=label(manifest.model), unconfined=servers)
