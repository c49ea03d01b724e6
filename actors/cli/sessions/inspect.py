"""``polypod ps``, ``show`` and ``log``: what sessions there are and what is in them."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import click
from msgspec import Raw

from actors.cli import options
from actors.cli.display.event_format import Line, entry_line
from actors.cli.display.format import ago, clock, count, dollars, seconds, tokens
from actors.cli.display.json_rows import LogRow, SessionRow, SessionShown, TreeRow
from actors.cli.display.terminal import Terminal
from actors.cli.display.views import put_json
from actors.cli.sessions.complete import complete_pods, complete_sessions
from actors.cli.sessions.store_reader import Reading
from actors.cli.sessions.summary import Summary, summary_of
from actors.cli.sessions.table import Row, print_sessions
from actors.sessions.replay import Replayed, replay
from actors.sessions.store import Holder, SessionInfo
from protocol.errors import SessionCorrupt, SessionError, SessionNotFound, WireError
from protocol.items import AssistantItem
from protocol.manifest import PodManifest
from protocol.usage import Usage
from protocol.wire import decode_entry

#: Sessions that ``ps`` lists for a person who does not ask for all.
_LISTED = 30


class Stand(NamedTuple):
    """How a session stands: the outcome of its last run, the process that holds it, and how many of its calls
    wait for approval.
    """

    last_run: str
    holder: Holder | None
    waiting: int


class Listed(NamedTuple):
    """A session, how it stands, and what it is known by."""

    info: SessionInfo
    stand: Stand
    summary: Summary


@click.command()
@click.option("--pod", metavar="NAME", shell_complete=complete_pods, help="Only the sessions of this pod.")
@click.option("--all", "everything", is_flag=True, help=f"All sessions, not only the last {_LISTED}.")
@options.store
@options.as_json
def ps(pod: str | None, everything: bool, store: str | None, as_json: bool) -> None:
    """List the sessions, the most recently changed first.

    Shows the state of each, its task, folder and model, and its cost in US dollars.
    """
    limit = None if everything or as_json else _LISTED + 1
    with Reading(store) as reading:
        sessions = list(listed(reading.sessions(pod, limit), reading))
        url, unreadable = reading.url, reading.unreadable(lately=limit is not None)
        if pod is not None and not sessions:
            raise options.no_such_pod(pod, reading)
    terminal = Terminal()
    if as_json:
        for info, stand, summary in sessions:
            put_json(SessionRow(**_facts(info), **stand._asdict(), **summary._asdict()))
        _report_unreadable(unreadable, url, terminal)
        return
    _report_unreadable(unreadable, url, terminal)
    if not sessions:
        terminal.note(f"no sessions{' that can be read' if unreadable else ''} in {url}")
        return
    shown = sessions if limit is None else sessions[:_LISTED]
    print_sessions([row_of(each) for each in shown], terminal)
    if len(shown) < len(sessions):
        terminal.note("there are more; list them with --all")
    if unconfined := ", ".join(_unconfined(shown)):
        terminal.note(f"running without confinement (MCP servers, programs of other agents): {unconfined}")


def _unconfined(sessions: Iterable[Listed]) -> Iterator[str]:
    """What works for those sessions that a process has, and is confined by nothing."""
    for info, stand, summary in sessions:
        if stand.holder is not None and summary.unconfined:
            yield f"{', '.join(summary.unconfined)} ({info.pod})"


def _report_unreadable(unreadable: dict[str, SessionError], url: str, terminal: Terminal) -> None:
    """Say what is left out of the list, and what may be done about it."""
    if not unreadable:
        return
    session_id, error = next(iter(unreadable.items()))
    more = f", and {len(unreadable) - 1} more" if len(unreadable) > 1 else ""
    terminal.note(f"polypod: {session_id!r} cannot be read{more}: {error.message}", "error")
    terminal.note(
        f"  hint: polypod fsck --store {shlex.quote(url)} lists each; --repair sets them aside", "note"
    )


def listed(sessions: Iterable[SessionInfo], reading: Reading) -> Iterator[Listed]:
    """What is listed of sessions; those that are deleted meanwhile are passed over. Raises SessionError."""
    for info in sessions:
        with suppress(SessionNotFound):
            summary, last, asks = summary_of(info, reading)
            yield Listed(info, _stand(info, reading, last or _last_run(info, reading), asks=asks), summary)


def row_of(session: Listed) -> Row:
    """A session as the table of sessions has it."""
    info, stand, summary = session
    about = (summary.task, summary.folder, summary.model, summary.cost)
    return Row(info.session_id, info.pod, info.updated_at, last_words(info, stand), *about)


#: What made a session of another, by what its parent says.
_MADE_BY = {"compacted_from": "compaction", "forked_from": "fork"}


def stand_of(info: SessionInfo, reading: Reading) -> Stand:
    """How a session stands now. Raises SessionError."""
    return _stand(info, reading, _last_run(info, reading))


def _last_run(info: SessionInfo, reading: Reading) -> str:
    """How the last run of a session ended; of one that is damaged where that stands ``unreadable``."""
    try:
        return reading.last_run(info)
    except (SessionCorrupt, WireError):
        return "unreadable"


def _stand(info: SessionInfo, reading: Reading, last: str, *, asks: bool = True) -> Stand:
    """``asks``: whether the session may have calls that wait for approval."""
    runs, waiting = info, 0
    if last == "none":
        with suppress(SessionError, WireError):  # damaged, or its pod's session is gone
            runs = reading.of_runs(info)
            last = reading.last_run(runs)
    if last in {"open", "paused"} and (asks or runs is not info):
        with suppress(SessionError, WireError):  # damaged: fsck says so
            waiting = len(reading.unanswered(runs))
    return Stand(last, reading.holder(info.session_id), waiting)


def last_words(info: SessionInfo, stand: Stand) -> str:
    """How a session's last run stands: a run without an end goes on only where somebody holds it."""
    last, holder, waiting = stand
    none = "no run yet" if info.parent is None else f"none since the {_MADE_BY[info.parent.kind]}"
    words = {"open": "interrupted" if holder is None else "running", "none": none}.get(last, last)
    if waiting:
        words = "waits for approval" if words == "running" else f"{words}, waits for approval"
    return words if holder is None else f"{words}, in process {holder.pid}"


def _facts(info: SessionInfo) -> dict[str, Any]:
    """A session as data; the head's hash as ``fork`` takes it."""
    return {
        "session_id": info.session_id,
        "pod": info.pod,
        "created_at": info.created_at,
        "updated_at": info.updated_at,
        "seq": info.head.seq,
        "head": info.head.hash.hex(),
        "parent": info.parent,
    }


def _origin(info: SessionInfo) -> str:
    """The session that this one comes from, and how; empty if from none."""
    return "" if info.parent is None else f"{info.parent.kind.replace('_', ' ')} {info.parent.session_id}"


@click.command
@click.argument("session", shell_complete=complete_sessions)
@options.store
@options.as_json
def show(session: str, store: str | None, as_json: bool) -> None:
    """Show what SESSION (an id, the beginning of it or of its last group, or last) is, what it used, and its
    last answer.
    """
    with Reading(store) as reading:
        info = reading.find(session)
        state = replay(reading.checked(info.session_id))
        stand = stand_of(info, reading)
        manifest = reading.manifest(info.session_id)
    if as_json:
        put_json(
            SessionShown(
                **_facts(info),
                **stand._asdict(),
                usage=state.usage or Usage(),
                cost=state.cost,
                seconds=state.seconds,
                items=len(state.items),
                manifest=manifest.without_secrets(),
                answer=_answer(state),
            )
        )
        return
    terminal = Terminal()
    rows = {**_rows(info, manifest, state), "last run": last_words(info, stand)}
    for key, value in rows.items():
        if value:
            terminal.line(Line("answer", f"{key:<10} {value}"))
    terminal.write(f"\n{_answer(state) or ''}")
    terminal.end_line()


def _rows(info: SessionInfo, manifest: PodManifest, state: Replayed) -> dict[str, str]:
    """What is printed of a session, by its label; what is empty is left out."""
    return {
        "session": info.session_id,
        "pod": info.pod,
        "model": "/".join(filter(None, (manifest.model.scheme, manifest.model.model_id))),
        "directory": manifest.pod.pwd,
        "from": _origin(info),
        "created": clock(info.created_at, "%Y-%m-%d %H:%M:%S"),
        "changed": ago(info.updated_at, time.time()),
        "holds": f"{info.head.seq:,} entries, {count(len(state.items), 'item')}",
        "used": ", ".join(_used(state)),
    }


def _used(state: Replayed) -> Iterator[str]:
    yield tokens(state.usage or Usage())
    if state.cost is not None:
        yield dollars(state.cost)
    yield seconds(state.seconds)


def _answer(state: Replayed) -> str | None:
    """The last words of the model."""
    answers = (item.text for item in reversed(state.items) if isinstance(item, AssistantItem) and item.text)
    return next(answers, None)


@click.command
@click.argument("session", shell_complete=complete_sessions)
@click.option("--tree", is_flag=True, help="Show the sessions that it branches from and into.")
@options.store
@options.as_json
def log(session: str, tree: bool, store: str | None, as_json: bool) -> None:
    """Print the entries of SESSION, oldest first: an id, a beginning of it or of its last group, or last."""
    with Reading(store) as reading:
        info = reading.find(session)
        if tree:
            _tree(reading, info, as_json=as_json)
        else:
            _entries(reading, info, as_json=as_json)


def _entries(reading: Reading, info: SessionInfo, *, as_json: bool) -> None:
    terminal = Terminal()
    for entry in reading.checked(info.session_id):
        if as_json:
            put_json(LogRow(entry.seq, entry.hash.hex(), Raw(entry.body)))
            continue
        decoded = decode_entry(entry.body)
        at = clock(decoded.at)
        tone, text = entry_line(decoded, max(terminal.width - 24, 20))
        terminal.row(Line(tone, f"{entry.seq:>5} {at} {entry.hash.hex()[:8]} {text}"))


def _tree(reading: Reading, info: SessionInfo, *, as_json: bool) -> None:
    chosen, terminal, seen = info.session_id, Terminal(), {info.session_id}
    with suppress(SessionNotFound):  # what it comes from may be gone, or in another store
        while info.parent is not None and info.parent.session_id not in seen:
            info = reading.info(info.parent.session_id)
            seen.add(info.session_id)
    branches, shown = [(info, 0)], set[str]()
    while branches:
        info, depth = branches.pop()
        if info.session_id in shown:  # somebody has written a session that is its own ancestor
            continue
        shown.add(info.session_id)
        branches += [(child, depth + 1) for child in reversed(reading.successors(info.session_id))]
        if as_json:
            put_json(TreeRow(**_facts(info), depth=depth))
            continue
        origin = (
            ""
            if info.parent is None
            else f", {info.parent.kind.removesuffix('_from')} at {info.parent.at_seq}"
        )
        mark = "▸" if info.session_id == chosen else "·"
        tone = "answer" if info.session_id == chosen else "quiet"
        text = f"{'  ' * depth}{mark} {info.session_id}  {info.pod}, through {info.head.seq}{origin}"
        terminal.row(Line(tone, text))
