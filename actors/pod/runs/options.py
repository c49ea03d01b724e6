"""What a run may be given beside its words, and the commands that carry it to the pod."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypedDict

from actors.llm.output import schema_for
from actors.pod.runs.run_state import ResumeHere, RunHere
from protocol import commands
from protocol.items import Part, parts_of

Content = str | Sequence[str | Part]


class ResumeOptions(TypedDict, total=False):
    """What a run may be given as it begins, or as it goes on after a pause.

    ``deps`` is what its tools find as ``ctx.deps``, in the place of what the pod was spawned with. With
    ``cancel_on_abandon`` the run is cancelled where the task that awaits its future is; else it goes on.
    """

    deps: Any
    cancel_on_abandon: bool


class RunOptions(ResumeOptions, total=False):
    """The same for a run that begins. While another run goes on this one waits behind it (at most 32 do), or
    raises PodBusy with ``busy="reject"``.
    """

    busy: Literal["queue", "reject"]


def run_command(content: Content, output: Any, options: RunOptions, run_id: str | None) -> RunHere:
    """The command that begins a run. Raises TypeError for an ``output`` that has no JSON Schema."""
    return _run_command(content, output, run_id, **options)


def _run_command(
    content: Content,
    output: Any,
    run_id: str | None,
    *,
    busy: Literal["queue", "reject"] = "queue",
    deps: Any = None,
    cancel_on_abandon: bool = False,  # noqa: ARG001 - the future's, not the run's
) -> RunHere:
    return RunHere(parts_of(content), busy, _schema(output), run_id, output, deps)


def resume_command(output: Any, options: ResumeOptions) -> commands.Resume:
    """The command by which a paused run goes on. Raises as ``run_command``."""
    return _resume_command(output, **options)


def _resume_command(
    output: Any,
    *,
    deps: Any = None,
    cancel_on_abandon: bool = False,  # noqa: ARG001 - the same
) -> commands.Resume:
    return ResumeHere(_schema(output), output, deps)


def _schema(output: Any) -> dict[str, Any] | None:
    return None if output is None else schema_for(output)
