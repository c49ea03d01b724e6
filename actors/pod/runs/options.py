"""The options of a run, and the commands that carry them to the pod."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from actors.llm.base import LLMClient
from actors.llm.output import schema_for
from actors.pod.runs.output_check import OutputCheck
from actors.pod.runs.own_options import OwnOptions, from_wire, own_options
from actors.pod.runs.run_state import ResumeHere, RunHere
from actors.tools.base import ToolContext
from protocol.commands import Resume, Run, WireOptions
from protocol.errors import InvalidInput
from protocol.foreign import shown
from protocol.items import Part, parts_of
from protocol.manifest import ModelSection
from protocol.model_settings import NAMES, ModelSettings

Content = str | Sequence[str | Part]
#: A system prompt, or a function that makes one, plain or async, with or without a parameter for the context.
SystemPrompt = str | Callable[[ToolContext[Any]], Any] | Callable[[], Any]

#: What a run may do that finds another at work.
_BUSY = ("queue", "reject")


class ResumeOptions(TypedDict, total=False):
    """The options of a run, also as it goes on after a pause.

    ``deps`` is what its tools find as ``ctx.deps``, instead of what the pod was spawned with. With
    ``cancel_on_abandon`` the run is cancelled if the task that awaits it is; otherwise it goes on.

    ``model`` answers instead of the pod's: ``scheme/model_id``, a ``[model]`` section or a client.
    ``model_settings`` override those of the manifest, ``system_prompt`` (or a function that makes it, once
    for the run) replaces the pod's, ``tools`` are added to the pod's. ``output_validator`` is called with the
    answer: the instance of ``output``, or else the text. What it returns replaces the answer (None: the
    answer stands), and a ModelRetry that it raises goes to the model, at most twice.
    """

    deps: Any
    cancel_on_abandon: bool
    model: str | ModelSection | Mapping[str, Any] | LLMClient
    model_settings: ModelSettings | Mapping[str, Any]
    system_prompt: SystemPrompt
    tools: Iterable[Any]
    output_validator: Callable[..., Any]


class RunOptions(ResumeOptions, total=False):
    """The options of a run as it begins. While another run is under way, a new one waits behind it (at most
    32 do), or raises PodBusy with ``busy="reject"``.
    """

    busy: Literal["queue", "reject"]


def run_command(content: Content, output: Any, options: RunOptions, run_id: str | None) -> RunHere:
    """The command that begins a run. Raises TypeError for an ``output`` that has no JSON Schema, and
    ManifestError and InvalidInput for invalid options.
    """
    deps, given = _split(options)
    busy = given.pop("busy", "queue")
    if busy not in _BUSY:
        raise InvalidInput(f"busy: expected 'queue' or 'reject', got {shown(busy)}")
    own = _own("run", given, RunOptions.__annotations__)
    return RunHere(parts_of(content), busy, _schema(output), run_id, output=output, deps=deps, own=own)


def resume_command(output: Any, options: ResumeOptions) -> ResumeHere:
    """The command that continues a paused run. Raises as ``run_command``."""
    deps, given = _split(options)
    own = _own("resume", given, ResumeOptions.__annotations__)
    return ResumeHere(_schema(output), output=output, deps=deps, own=own)


def _split(options: ResumeOptions) -> tuple[Any, dict[str, Any]]:
    """The ``deps`` of a run, and its other options except ``cancel_on_abandon``, which concerns its future
    alone.
    """
    given: dict[str, Any] = {**options}
    given.pop("cancel_on_abandon", None)
    return given.pop("deps", None), given


def run_from_wire(command: Run, check: OutputCheck | None = None) -> RunHere:
    """A run that another process asks for, its answers checked by ``check``. Raises ManifestError,
    InvalidInput.
    """
    own = from_wire(command.options, check)
    return RunHere(command.content, command.busy, command.output_schema, command.run_id, own=own)


def resume_from_wire(command: Resume, check: OutputCheck | None = None) -> ResumeHere:
    """A resumed run that another process asks for. Raises as ``run_from_wire``."""
    return ResumeHere(command.output_schema, own=from_wire(command.options, check))


def run_for_wire(command: RunHere) -> Run:
    """The run in the form that is sent to another process. Raises InvalidInput for what cannot travel."""
    return Run(
        command.content, command.busy, command.output_schema, command.run_id, _options_for_wire(command)
    )


def resume_for_wire(command: ResumeHere) -> Resume:
    """The resumed run in the form that is sent to another process. Raises InvalidInput for what cannot
    travel.
    """
    return Resume(command.output_schema, _options_for_wire(command))


def _options_for_wire(command: RunHere | ResumeHere) -> WireOptions | None:
    if command.deps is not None:
        raise InvalidInput(
            "a run's deps cannot be sent to a pod in another process",
            hint="create them in the module of its tools",
        )
    return None if command.own is None else command.own.for_wire()


def _own(method: str, given: dict[str, Any], known: Collection[str]) -> OwnOptions | None:
    """The checked options of a run; ``known`` are all that the ``method`` takes, for the error about an
    unknown one.
    """
    if not given:
        return None
    for name in given:
        if name not in known:
            setting = f"; pass it in model_settings={{{name!r}: …}}" if name in NAMES else ""
            raise InvalidInput(
                f"{method}() got an unexpected keyword argument {name!r}{setting}",
                hint=f"the options are output, {', '.join(sorted(known))}",
            )
    return own_options(**given)


def _schema(output: Any) -> dict[str, Any] | None:
    return None if output is None else schema_for(output)
