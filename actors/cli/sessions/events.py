"""``polypod events``: the durable events of all processes that share a store, as they are kept."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import click
from msgspec import Raw

from actors.cli import options
from actors.cli.display.event_format import Line, event_line
from actors.cli.display.format import clock
from actors.cli.display.terminal import Terminal
from actors.cli.display.views import put_json
from actors.cli.errors import FAILED, Exit
from actors.cli.sessions.complete import complete_pods
from actors.cli.sessions.store_reader import Reading
from protocol.errors import PolypodError, SessionCorrupt, SessionNotFound, WireError
from protocol.events import DurableEvent
from protocol.wire import decode_entry

#: Seconds between two looks into the store.
_POLL = 0.2


class _Kept(NamedTuple):
    """An event, and the bytes that the store has of it."""

    event: DurableEvent
    body: bytes


@click.command
@click.option("--pod", metavar="NAME", shell_complete=complete_pods, help="Only the events of this pod.")
@click.option("--since", metavar="N", type=int, default=0, help="Only events numbered above N.")
@click.option("--follow", "-f", is_flag=True, help="Keep printing new events until Ctrl-C.")
@options.store
@options.as_json
def events(pod: str | None, since: int, follow: bool, store: str | None, as_json: bool) -> None:
    """Print the events of pods in all processes, oldest first."""
    terminal = Terminal()
    seen: dict[str, int] = {}
    damaged: dict[str, PolypodError] = {}
    with Reading(store) as reading, suppress(KeyboardInterrupt):
        if pod is not None and not follow and not reading.sessions(pod, limit=1):
            raise options.no_such_pod(pod, reading)
        while True:
            for event, body in _new(reading, pod, since, seen, damaged):
                if as_json:
                    put_json(Raw(body))
                else:
                    _print(event, terminal)
            for session_id, error in damaged.items():
                terminal.note(f"polypod: session {session_id} cannot be read on: {error.message}", "error")
            if not follow and damaged:
                raise Exit(FAILED)
            if not follow:
                return
            damaged.clear()
            time.sleep(_POLL)


def _new(
    reading: Reading, pod: str | None, since: int, seen: dict[str, int], damaged: dict[str, PolypodError]
) -> Iterator[_Kept]:
    """The events that came since the last look, those of all sessions in order of their time; why a session
    cannot be read to its end is put into ``damaged``.
    """
    changed = [info for info in reading.sessions(pod) if info.head.seq > seen.get(info.session_id, since)]
    logs = [
        _of_session(reading, info.session_id, seen.get(info.session_id, since), damaged) for info in changed
    ]
    for kept in heapq.merge(*logs, key=lambda kept: kept.event.at):
        event = kept.event
        seen[event.session_id] = max(seen.get(event.session_id, 0), event.seq)
        yield kept
    seen.update({info.session_id: max(info.head.seq, seen.get(info.session_id, 0)) for info in changed})


def _of_session(
    reading: Reading, session_id: str, after: int, damaged: dict[str, PolypodError]
) -> Iterator[_Kept]:
    try:
        for stored in reading.stored(session_id, after):
            entry = decode_entry(stored.body)
            if isinstance(entry, DurableEvent):
                yield _Kept(entry, stored.body)
    except SessionNotFound:  # deleted meanwhile
        return
    except (SessionCorrupt, WireError) as error:
        damaged[session_id] = error


def _print(event: DurableEvent, terminal: Terminal) -> None:
    at = clock(event.at)
    tone, text = event_line(event, max(terminal.width - 44, 20))
    kind = type(event).__name__
    terminal.row(Line(tone, f"{at} {event.pod} {event.seq:>4} {kind:<16} {text}"))
