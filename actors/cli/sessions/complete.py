"""What a shell is offered for sessions and pods: those of the store."""

from __future__ import annotations

from contextlib import suppress

import click
from click.shell_completion import CompletionItem

from actors.cli.sessions.store_reader import LAST, Reading
from actors.sessions.head import short_id
from protocol.errors import PolypodError

#: Sessions that are offered.
_OFFERED = 30


def complete_sessions(context: click.Context, _: click.Parameter, typed: str) -> list[CompletionItem]:
    """The last changed sessions, by the ids that a person types, with their tasks."""
    found = [CompletionItem(LAST, help="the most recently changed one")] if LAST.startswith(typed) else []
    with suppress(PolypodError, OSError), Reading(_option(context, "store")) as reading:
        for info in reading.sessions(limit=_OFFERED):
            task = ""
            with suppress(PolypodError):
                task = reading.task(info.session_id)
            short = short_id(info.session_id)
            name = short if short.startswith(typed) else info.session_id
            if name.startswith(typed):
                found.append(CompletionItem(name, help=f"{info.pod}: {task}" if task else info.pod))
    return found


def complete_pods(context: click.Context, _: click.Parameter, typed: str) -> list[CompletionItem]:
    """The names of pods that have sessions."""
    names: dict[str, None] = {}
    with suppress(PolypodError, OSError), Reading(_option(context, "store")) as reading:
        names = dict.fromkeys(info.pod for info in reading.sessions(limit=_OFFERED * 10))
    return [CompletionItem(name) for name in names if name.startswith(typed)]


def _option(context: click.Context, name: str) -> str | None:
    value = context.params.get(name)
    return value if isinstance(value, str) else None
