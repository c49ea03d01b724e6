"""What people recognise a session by: task, folder, model and cost, and what of it runs unconfined."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

from actors.cli.display.format import cut
from actors.cli.sessions.store_reader import WORDS, Reading
from actors.pod.client_factory import label
from actors.pod.session.restore import check_end, last_run_in
from actors.sessions.chain import head_of
from actors.sessions.replay import Replayed
from actors.sessions.store import SessionInfo
from actors.swarm.agents.history import POD_RUNNERS
from protocol.agents import spec_of
from protocol.entries import Parent, SessionOpened, StoredEntry
from protocol.errors import SessionCorrupt, SessionError, WireError
from protocol.events import PodStarted, UserMessage
from protocol.manifest import PodManifest
from protocol.wire import decode_entry

#: Runners that start no program of others.
_OWN_RUNNERS = (*POD_RUNNERS, "local")
#: How an entry begins that says on which model its pod goes on, or what was said to it; what one that cost
#: something holds.
_STARTED, _SAID, _COST = b'{"type":"PodStarted"', b'{"type":"UserMessage"', b'"cost":'
#: What an entry holds that says of a call that it waits for approval.
_ASKED = b'"ApprovalRequested"'


class Summary(NamedTuple):
    """A session in short. ``cost`` is in US dollars, None where nobody knows it; texts are empty where
    nothing is known. ``unconfined`` are its MCP servers and, of an agent, the program of others that it is.
    """

    task: str = ""
    folder: str = ""
    model: str = ""
    cost: float | None = None
    unconfined: tuple[str, ...] = ()


def summary_of(info: SessionInfo, reading: Reading) -> tuple[Summary, str | None, bool]:
    """The summary of a session, how its last run ended (see ``Reading.last_run``), and whether it may have
    calls that wait for approval, read once; of one that is damaged as much as can be read, and None. Raises
    SessionNotFound, StoreError.
    """
    found, last, end = _Found(), "none", None
    try:
        for page in reading.pages(info):
            found.read(page)
            last = last_run_in(info.session_id, page, end) or last
            end = head_of(page)
        check_end(info, end.seq if end else 0)
    except (SessionCorrupt, WireError):
        return found.summary(reading), None, True
    return found.summary(reading), last, found.asks


class _Found:
    """What was found in the entries of a session so far."""

    def __init__(self) -> None:
        self._opened = Summary()
        self._parent: Parent | None = None
        self._words: str | None = None
        self._model = ""
        self._costs = Replayed()
        self._begun = False
        #: Whether any entry says of a call that it waits for approval.
        self.asks = False

    def read(self, page: Sequence[StoredEntry]) -> None:
        """Read on. Raises WireError."""
        if not self._begun:
            self._begun = True
            self._open(page[0])
        for stored in page:
            body = stored.body
            if body.startswith(_STARTED):
                started = decode_entry(body)
                self._model = started.model if isinstance(started, PodStarted) else self._model
            elif _COST in body:  # nearly all entries are spared the decoding
                self._costs.read((stored,))
            self.asks = self.asks or _ASKED in body
            if self._words is None and body.startswith(_SAID):
                said = decode_entry(body)
                self._words = said.item.text if isinstance(said, UserMessage) else None

    def _open(self, stored: StoredEntry) -> None:
        opened = decode_entry(stored.body)
        if not isinstance(opened, SessionOpened):
            return
        self._parent = opened.parent
        if (spec := spec_of(opened.manifest)) is not None:
            runner = spec.runner if isinstance(spec.runner, str) else " ".join(spec.runner)
            is_foreign = not (spec.has_objects or spec.runner in _OWN_RUNNERS)
            self._opened = Summary(folder=spec.cwd, unconfined=(runner,) if is_foreign else ())
            self._model, self._words, self._parent = runner, spec.task, None
            return
        with suppress(msgspec.DecodeError):  # of a newer version
            manifest = msgspec.json.decode(opened.manifest, type=PodManifest)
            servers = tuple(each.name for each in manifest.tools.mcp)
            self._opened = Summary(folder=manifest.pod.pwd, unconfined=servers)
            self._model = label(manifest.model)

    def summary(self, reading: Reading) -> Summary:
        """The summary; what a session goes on from may say how it began."""
        words = self._words or ""
        if self._parent is not None:
            with suppress(SessionError, WireError):
                words = reading.first_words(self._parent.session_id) or words
        return self._opened._replace(task=cut(words, WORDS), model=self._model, cost=self._costs.cost)
