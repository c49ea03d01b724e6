"""The agents of a folder as their files have them, for a list where no service starts.

On a full disk the store cannot be opened, not even to read it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
from msgspec import Struct

from actors.cli.swarm.rows import Row
from actors.swarm.agents.projections import STDOUT, Meta, last_line, read_meta
from protocol.agents import AgentStatus
from protocol.errors import Failure


class _End(Struct, tag="result"):
    """The last line of an agent that has ended."""

    status: AgentStatus
    is_error: bool
    result: str


def read_rows(root: Path) -> list[Row]:
    """The agents, the newest first: one that has ended stands as its last task does, one of which the files
    give no end is detached. Raises OSError.
    """
    metas = {folder: read_meta(folder) for folder in (root / "agents").iterdir()}
    rows = [_read_row(folder, meta) for folder, meta in metas.items() if meta is not None]
    return sorted(rows, key=lambda each: (-each.created_at, each.id))


def _read_row(folder: Path, meta: Meta) -> Row:
    end: _End | None = None
    with contextlib.suppress(OSError, ValueError, msgspec.ValidationError):
        end = msgspec.convert(last_line(folder / STDOUT), _End)
    spec, status = meta.agent, "detached" if end is None else end.status
    return Row(
        id=spec.id,
        status=status,
        activity=status,
        task=spec.task,
        runner=spec.runner if isinstance(spec.runner, str) else " ".join(spec.runner),
        cwd=spec.cwd,
        created_at=spec.created_at,
        session_id=meta.session_id,
        result=status,
        text="" if end is None or end.is_error else end.result,
        error=Failure("AgentFailed", end.result) if end is not None and status == "failed" else None,
    )
