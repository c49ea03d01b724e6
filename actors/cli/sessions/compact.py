"""``polypod compact``: replaces the older part of a session's history by a summary, in a new session."""

from __future__ import annotations

import click

from actors.cli import options
from actors.cli.display.terminal import Terminal
from actors.cli.display.views import put_json
from actors.cli.interrupts import run_interruptible
from actors.cli.places import memory_folder
from actors.cli.pods.manifest import Wishes, with_model
from actors.cli.sessions.complete import complete_sessions
from actors.cli.sessions.store_reader import Reading
from actors.system import PodSystem
from protocol.events import CompactDone
from protocol.manifest import PodManifest


@click.command
@click.argument("session", shell_complete=complete_sessions)
@click.option(
    "--retain",
    metavar="TOKENS",
    type=click.IntRange(min=0),
    help="The number of tokens at its end to keep unchanged.",
)
@options.model_again
@options.base_url_again
@options.store
@options.as_json
def compact(
    session: str,
    retain: int | None,
    model: str | None,
    base_url: str | None,
    store: str | None,
    as_json: bool,
) -> None:
    """Replace the older part of SESSION's history with a summary, in a new session that takes its place."""
    with Reading(store) as reading:
        session_id, url = reading.find(session).session_id, reading.url
        manifest = with_model(reading.manifest(session_id), Wishes(model=model, base_url=base_url))
    done = run_interruptible(_compact(manifest, url, session_id, retain))
    if as_json:
        put_json(done)
        return
    click.echo(done.new_session_id)
    Terminal().note(f"about {done.before:,} tokens before, {done.after:,} after")


async def _compact(manifest: PodManifest, store: str, session: str, retain: int | None) -> CompactDone:
    async with PodSystem(store=store, memory=memory_folder()) as system:
        pod = await system.spawn(manifest, resume=session)
        with pod.subscribe(CompactDone) as events:
            await pod.compact(retain)
            (done,) = events.drain()
    assert isinstance(done, CompactDone)
    return done
