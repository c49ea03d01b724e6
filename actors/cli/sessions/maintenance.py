"""``polypod fork``, ``fsck``, ``export``, ``import`` and ``gc``: sessions kept sound, moved and let go."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click

from actors.cli import options
from actors.cli.ages import age_of
from actors.cli.display.format import count, visible
from actors.cli.display.json_rows import NewSession
from actors.cli.display.terminal import Terminal
from actors.cli.display.views import put_json
from actors.cli.errors import Exit
from actors.cli.places import default_store
from actors.cli.sessions.brought import brought_by
from actors.cli.sessions.complete import complete_sessions
from actors.cli.sessions.inspect import listed, row_of
from actors.cli.sessions.store_reader import Reading, exists
from actors.cli.sessions.table import print_sessions
from actors.sessions import repair, retention
from actors.sessions.answers import wait
from actors.sessions.disk import is_of_full_disk
from actors.sessions.head import new_session_id
from actors.sessions.store import SessionInfo, SessionStore
from actors.sessions.urls import open_store
from protocol.entries import SessionOpened
from protocol.errors import SessionError, SessionNotFound, StoreError, WireError
from protocol.wire import decode_entry


@click.command
@click.argument("session", shell_complete=complete_sessions)
@click.option(
    "--at",
    metavar="HASH",
    help="The entry to branch from, by the beginning of its hash as log prints it  [default: the last one]",
)
@options.store
@options.as_json
def fork(session: str, at: str | None, store: str | None, as_json: bool) -> None:
    """Open a session that branches off from another, which stays unchanged."""
    with Reading(store) as reading:
        found = reading.find(session)
        _print_sessions([_branch(open_store(reading.url), found.session_id, at)], as_json=as_json)


@click.command
@click.option("--repair", "mend", is_flag=True, help="Replace damaged sessions with their undamaged part.")
@options.store
@options.as_json
def fsck(mend: bool, store: str | None, as_json: bool) -> None:
    """Check every session's hash chain; exit 1 if anything is damaged.

    With --repair a damaged session is replaced by one that continues from its undamaged beginning, and is
    moved into the folder damaged beside the store; exit 1 only if something could not be repaired.
    """
    opened, terminal = _open_existing(store), Terminal()
    try:
        findings, left = list(repair.check(opened)), 0
        for finding in findings:
            if as_json:
                put_json(finding)
            else:
                where = finding.session_id or opened.url
                at = "" if finding.seq is None else f", entry {finding.seq}"
                terminal.note(f"{finding.kind}: {where}{at}: {finding.text}")
        for finding in findings if mend else ():
            left += not _mend(opened, finding, terminal, as_json=as_json)
    finally:
        wait(opened.close())
    if left or (findings and not mend):
        if not mend and any(finding.session_id for finding in findings) and not as_json:
            terminal.note("polypod fsck --repair continues damaged sessions from their undamaged beginning")
        raise Exit(1)
    if not as_json:
        terminal.note("all sessions are undamaged" + (" now" if findings else ""))


def _mend(store: SessionStore, finding: repair.Finding, terminal: Terminal, *, as_json: bool) -> bool:
    folder = (store.folder or Path.cwd()) / "damaged"
    try:
        forked, kept = repair.mend(store, finding, repair.successor_id(finding), folder)
    except SessionError as error:
        terminal.note(f"not mended: {error}")
        return False
    if forked is not None:
        _print_sessions([forked], as_json=as_json)
    if kept is not None and not as_json:
        terminal.note(f"the damaged session is kept as {kept}")
    return finding.kind not in {"store", "newer"}


@click.command
@click.argument("sessions", nargs=-1, required=True, metavar="SESSION...", shell_complete=complete_sessions)
@options.store
def rm(sessions: tuple[str, ...], store: str | None) -> None:
    """Delete sessions for good, damaged ones too, but never one in use."""
    opened = _open_existing(store)
    try:
        with Reading(store) as reading:
            found = dict.fromkeys(_find(reading, opened, each) for each in sessions)
        with _on_full_disk():
            for session_id in found:
                wait(opened.delete(session_id))
                click.echo(visible(session_id))
    finally:
        wait(opened.close())


def _find(reading: Reading, store: SessionStore, beginning: str) -> str:
    """Find the id of a session by its beginning; an unreadable session is found by its whole id only."""
    try:
        wait(store.holder(beginning))  # one of just that id, which may be unreadable, without a look at all
    except SessionNotFound:
        return reading.find(beginning).session_id
    except SessionError:
        return beginning if beginning in wait(store.unreadable()) else reading.find(beginning).session_id
    return beginning


@click.command
@click.argument("session", shell_complete=complete_sessions)
@click.argument("file", type=click.Path(path_type=Path))
@options.store
def export(session: str, file: Path, store: str | None) -> None:
    """Write a session to a new FILE of JSON lines, its hashes intact (``-``: to standard output)."""
    with Reading(store) as reading:
        found = reading.find(session)
        opened = open_store(reading.url)
        try:
            if str(file) == "-":
                for line in repair.export_lines(opened, found.session_id):
                    sys.stdout.buffer.write(line)
            else:
                repair.export_session(opened, found.session_id, file)
        finally:
            wait(opened.close())


@click.command("import")
@click.argument("file", type=click.File("rb", lazy=True))  # not yet open where a later argument is wrong
@options.store
@options.as_json
def import_(file: BinaryIO, store: str | None, as_json: bool) -> None:
    """Check an exported session and import it into the store."""
    opened = open_store(store or default_store())
    try:
        info = repair.import_session(opened, file, name=file.name)
        _print_sessions([info], as_json=as_json)
        if not as_json:
            _note_brought(opened, info)
    finally:
        wait(opened.close())


def _note_brought(store: SessionStore, info: SessionInfo) -> None:
    """Say what a session starts and may touch once it is continued, as whoever wrote its file has decided."""
    terminal = Terminal()
    with contextlib.suppress(WireError):  # nothing of it can be continued
        opened = decode_entry(wait(store.read(info.session_id, limit=1))[0].body)
        if isinstance(opened, SessionOpened) and (lines := list(brought_by(opened))):
            terminal.note("this holds once it is continued; continue it only if you trust its file:")
            for line in lines:
                terminal.note(f"  {visible(line)}")


@click.command
@click.option(
    "--older-than", metavar="AGE", help="Sessions that have not changed for this long, like 30d, 12h or 2w."
)
@click.option("--superseded", is_flag=True, help="Sessions that a compaction has replaced.")
@click.option("--dry-run", is_flag=True, help="List what would be deleted, and delete nothing.")
@options.store
@options.as_json
def gc(older_than: str | None, superseded: bool, dry_run: bool, store: str | None, as_json: bool) -> None:
    """Delete old sessions for good, but never one in use, or one that a kept session was forked from."""
    if older_than is None and not superseded:
        raise click.UsageError("say what to delete: --older-than AGE, --superseded, or both")
    age = None if older_than is None else age_of(older_than)
    opened = _open_existing(store)
    try:
        with _on_full_disk():
            gone = retention.collect(opened, older_than=age, superseded=superseded, dry_run=dry_run)
        if not dry_run:
            _give_back(opened)
    finally:
        wait(opened.close())
    if dry_run and gone and not as_json:
        with Reading(opened.url) as reading:
            print_sessions([row_of(each) for each in listed(gone, reading)], Terminal())
    else:
        _print_sessions(gone, as_json=as_json)
    if not as_json:
        Terminal().note(f"{count(len(gone), 'session')} {'would be deleted' if dry_run else 'deleted'}")


@contextlib.contextmanager
def _on_full_disk() -> Iterator[None]:
    """Whoever deletes sessions wants to free some space, and is not to be asked for that alone."""
    try:
        yield
    except StoreError as error:
        if is_of_full_disk(error):
            error.hint = "deleting takes some space at first: free a few MB by other means, and do it again"
        raise


def _give_back(store: SessionStore) -> None:
    """Give the space of deleted sessions back to the disk, or say that this is left to the next time."""
    try:
        wait(store.reclaim())
    except SessionError as error:
        Terminal().note(f"its space is not freed yet: {error}")


def _open_existing(store: str | None) -> SessionStore:
    """Open a store that exists; maintenance never creates one. Raises UsageError."""
    url = store or default_store()
    if not exists(url):
        raise click.UsageError(f"there is no store at {url}")
    return open_store(url)


def _branch(store: SessionStore, session_id: str, at: str | None) -> SessionInfo:
    return repair.fork(store, session_id, new_session_id(), at=at)


def _print_sessions(sessions: list[SessionInfo], *, as_json: bool) -> None:
    for info in sessions:
        if as_json:
            put_json(NewSession(info.session_id, info.pod, info.parent))
        else:
            click.echo(visible(info.session_id))
