"""``polypod pool run``: does the jobs of a queue, and shows how that gets on."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import click

from actors.cli.display.terminal import Terminal
from actors.cli.interrupts import run_interruptible
from actors.cli.places import default_store
from actors.cli.pods.manifest import Wishes, manifest_for
from actors.cli.pool.progress import Progress, progress_for
from actors.config.configuration import Configuration
from actors.routing.pool.configured import configured_pool
from actors.routing.pool.pool import Pool
from actors.routing.pool.settings import PodWork, limits_of
from actors.system import PodSystem
from protocol.jobs import Execution

#: Seconds between two looks at the jobs that ended.
_LOOK = 0.1
#: Seconds between two counts of all jobs.
_COUNT = 0.3
_PODS = ("pod", "process")


def work_off(
    store: str | None,
    runners: Mapping[str, Any],
    limits: Mapping[str, int],
    wishes: Wishes,
    *,
    forever: bool,
    as_json: bool,
) -> int:
    """Do the jobs of a queue until none is left: how many failed meanwhile. Raises PolypodError."""
    section, terminal = Configuration.load().pool, Terminal()
    named = runners or {name: name for name in section.runners}
    made = _make_runners(named, wishes, terminal)
    configured = {name: limit for name, limit in section.limits.items() if name in made}
    bounds = limits_of(made, {**configured, **limits})
    progress = progress_for(terminal, bounds, as_json=as_json)
    return run_interruptible(_work_off(store or default_store(), made, bounds, progress, forever=forever))


def _make_runners(named: Mapping[str, Any], wishes: Wishes, terminal: Terminal) -> dict[str, Any]:
    """The runners; pods as the options want them. Raises ManifestError."""
    if not any(spec in _PODS for spec in named.values()):
        return dict(named)
    manifest, notes = manifest_for(wishes, folder="the folder of their job")
    for note in notes:
        terminal.note(note)
    return {
        name: PodWork(manifest, process=spec == "process") if spec in _PODS else spec
        for name, spec in named.items()
    }


async def _work_off(
    url: str, runners: dict[str, Any], limits: dict[str, int], progress: Progress, *, forever: bool
) -> int:
    failed = 0
    async with PodSystem(store=url) as system:
        pool = configured_pool(system, runners=runners, limits=limits)
        mark, _ = await pool.ended_since(None)
        over = None if forever else asyncio.ensure_future(pool.join())
        try:
            with progress:
                async for execution in _ends(pool, mark, over, progress):
                    failed += execution.status in {"failed", "lost"}
                    progress.show_end(execution)
        finally:
            if over is not None:
                over.cancel()
    return failed


async def _ends(
    pool: Pool, mark: int, over: asyncio.Future[None] | None, progress: Progress
) -> AsyncIterator[Execution]:
    """The jobs as they end, until all is over."""
    last, counted = False, 0.0
    while not last:
        last = over is not None and over.done()
        mark, ended = await pool.ended_since(mark)
        for execution in ended:
            yield execution
        if last or time.monotonic() - counted > _COUNT:  # which takes longer the more there were ever
            progress.show_counts(await pool.counts(), pool.status())
            counted = time.monotonic()
        await asyncio.wait({over}, timeout=_LOOK) if over is not None else await asyncio.sleep(_LOOK)


def runner_named(given: str) -> tuple[str, Any]:
    """What ``NAME`` or ``NAME=COMMAND`` says. Raises UsageError."""
    if given.startswith("acp:"):
        return given, given
    name, equals, command = given.partition("=")
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise click.UsageError(f"--runner {name}: not a valid command: {error}") from error
    if not name or (equals and not words):
        raise click.UsageError(f"--runner {given!r} is not NAME or NAME=COMMAND")
    return name, words if equals else name


def limit_named(given: str) -> tuple[str, int]:
    """What ``NAME=N`` says. Raises UsageError."""
    name, _, number = given.rpartition("=")
    if not name or not (number.isascii() and number.isdecimal() and int(number[:9]) > 0):
        raise click.UsageError(f"--limit {given!r} is not NAME=N, with N 1 or more")
    return name, int(number)
