"""``polypod schema``: the JSON Schema of all that polypod prints for programs, and reads from them."""

from __future__ import annotations

from typing import Any, Union

import click
import msgspec

from protocol import wire


def _any_of(*kinds: type) -> Any:
    return Union[kinds]  # noqa: UP007 - a union of as many as there are


def output_kinds() -> dict[str, Any]:
    """What a line of each command's ``--json`` is; ``event`` stands where events are printed as well."""
    from actors.cli.bench.figures import BenchResult  # noqa: PLC0415 - paid for by who prints the schema
    from actors.cli.display import json_rows as rows  # noqa: PLC0415
    from actors.cli.display.checks import Check  # noqa: PLC0415
    from actors.cli.swarm.rows import Row  # noqa: PLC0415
    from actors.memory.note_index import Hit  # noqa: PLC0415
    from actors.sessions.repair import Finding  # noqa: PLC0415
    from protocol.events import EVENTS, CompactDone  # noqa: PLC0415
    from protocol.jobs import Execution  # noqa: PLC0415

    event, followed = _any_of(*EVENTS), _any_of(*EVENTS, rows.RunLine)
    return {
        "run": followed,
        "chat": followed,
        "resume": followed,
        "events": event,
        "ps": rows.SessionRow,
        "show": rows.SessionShown,
        "log": rows.LogRow,
        "log --tree": rows.TreeRow,
        "fork": rows.NewSession,
        "import": rows.NewSession,
        "gc": rows.NewSession,
        "fsck": Finding,
        "fsck --repair": rows.NewSession,
        "compact": CompactDone,
        "approvals": rows.WaitingCall,
        "memory list": rows.NoteRow,
        "memory show": rows.NoteRow,
        "memory search": Hit,
        "models": rows.ModelRow,
        "doctor": Check,
        "config check": Check,
        "pool": Execution,
        "swarm": Row,
        "swarm attach": event,
        "bench": BenchResult,
    }


def full_schema() -> dict[str, Any]:
    """The protocol's schema, and under ``output`` what a line of each command is."""
    protocol, kinds = wire.schema(), output_kinds()
    shapes, definitions = msgspec.json.schema_components(kinds.values(), ref_template="#/$defs/{name}")
    output = {"type": "object", "properties": dict(zip(kinds, shapes, strict=True))}
    return {
        **protocol,
        "properties": {**protocol["properties"], "output": output},
        "$defs": {**definitions, **protocol["$defs"]},
    }


@click.command
def schema() -> None:
    """Print the JSON Schema of events, commands, entries and items, for programs in any language, and, under
    output, of the lines that each command prints with --json.
    """
    click.echo(msgspec.json.format(wire.encode(full_schema()), indent=2))
