"""``OwnOptions``: what one run uses in place of its pod's model, settings, prompt, tools or validator."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from actors.llm.base import LLMClient, is_client
from actors.pod.runs.output_check import OutputCheck
from actors.runtime.arguments import several
from actors.tools.source import is_source
from protocol.commands import WireOptions
from protocol.errors import InvalidInput, ModelRetry
from protocol.foreign import shown
from protocol.manifest import ModelSection, PodManifest
from protocol.model_settings import ModelSettings
from protocol.text import encodable
from protocol.tools import ToolSpec

if TYPE_CHECKING:
    from actors.pod.resources import MakePrompt, PodResources
    from actors.tools.base import ToolContext

#: Choices that leave it to the model whether it calls a tool, or keep it from that.
_OPEN_CHOICES = frozenset({"auto", "none"})
#: How long a function of the user's may take that makes a prompt, and who looks at an answer, in seconds.
SECONDS = 60.0


#: What may be an object or a function, which stays in its process: as the program calls it, and what to do.
_STAYS = {
    "model": ("client", "name a model as scheme/model_id, or spawn the pod with client='module:name'"),
    "prompt": ("system_prompt", "pass the text instead of a function"),
    "tools": ("tools", "spawn the pod with tools=['module:name']"),
    "validator": ("output_validator", "check the result in your program, and run again"),
}
#: A model as programs name it.
AnyModel = str | ModelSection | Mapping[str, Any] | LLMClient


class OwnOptions(Struct, frozen=True, eq=False):
    """What one run is given; None, or empty, where it uses its pod's."""

    model: ModelSection | LLMClient | None = None
    settings: ModelSettings | None = None
    prompt: str | MakePrompt | None = None
    tools: tuple[Any, ...] = ()
    #: Looks at the answer of a run.
    validator: Any = None

    def over(self, before: OwnOptions | None) -> OwnOptions:
        """These options, completed by ``before``."""
        return self if before is None else replace(before, **self.given())

    def given(self) -> dict[str, Any]:
        """The options that the run is given, by name; an empty prompt counts as given, no tools do not."""
        options = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return {name: value for name, value in options if value is not None and (name != "tools" or value)}

    @property
    def check(self) -> OutputCheck | None:
        """The check of answers in the process that asked for the run; None if there is none."""
        return self.validator if isinstance(self.validator, OutputCheck) else None

    def for_wire(self) -> WireOptions:
        """The options in the form that is sent to another process. Raises InvalidInput for objects and
        functions, which cannot be.
        """
        model = self.model if isinstance(self.model, ModelSection) else None
        prompt = self.prompt if isinstance(self.prompt, str) else None
        travels, given = OwnOptions(model, self.settings, prompt, (), self.check).given(), self.given()
        for name, (option, hint) in _STAYS.items():
            if name in given and name not in travels:
                raise InvalidInput(f"a run's {option} cannot be sent to a pod in another process", hint=hint)
        return WireOptions(model, self.settings, prompt)


def own_options(
    *,
    model: AnyModel | None = None,
    model_settings: ModelSettings | Mapping[str, Any] | None = None,
    system_prompt: str | MakePrompt | None = None,
    tools: Iterable[Any] = (),
    output_validator: Any = None,
) -> OwnOptions | None:
    """The options of a run as a program gave them; None where there are none. Raises ManifestError,
    InvalidInput.
    """
    tools = several("tools", tools)
    for each in tools:
        if is_source(each):
            raise InvalidInput("tools: a tool source belongs to a pod, not to a run", hint="pass it to spawn")
    if system_prompt is not None and not isinstance(system_prompt, str):
        system_prompt = checked_prompt(system_prompt)
    if output_validator is not None and not callable(output_validator):
        raise InvalidInput(f"output_validator: expected a function, got {shown(output_validator)}")
    settings = None if model_settings is None else ModelSettings.of(model_settings)
    own = OwnOptions(_model(model), settings, system_prompt, tools, output_validator)
    return own if own.given() else None


def from_wire(options: WireOptions | None, check: OutputCheck | None) -> OwnOptions | None:
    """The options that another process sent, with its check of answers. Raises as ``own_options``."""
    sent = options or WireOptions()
    own = own_options(model=sent.model, model_settings=sent.model_settings, system_prompt=sent.system_prompt)
    return own if check is None else OwnOptions(validator=check).over(own)


def _model(
    model: str | ModelSection | Mapping[str, Any] | LLMClient | None,
) -> ModelSection | LLMClient | None:
    if model is None:
        return None
    if isinstance(model, str | ModelSection):
        return PodManifest.of(model=model).model
    if isinstance(model, Mapping):
        return PodManifest.of(model=dict(model)).model
    if is_client(model):
        return model
    raise InvalidInput(f"model: expected scheme/model_id, a [model] section or a client, got {shown(model)}")


def checked_prompt(prompt: Any) -> MakePrompt:
    """A function that makes a system prompt. Raises InvalidInput for anything that is not a function."""
    if not callable(prompt):
        raise InvalidInput(f"system_prompt: expected a string or a function, got {shown(prompt)}")
    made: MakePrompt = prompt
    return made


def settings_now(settings: ModelSettings, tools: Iterable[ToolSpec], steps: int) -> ModelSettings:
    """The settings of a run's request after ``steps`` others: only the first demands a call. Raises
    InvalidInput if they name a tool that does not exist.
    """
    choice = settings.tool_choice
    if choice in _OPEN_CHOICES:
        return settings
    if steps:
        return replace(settings, tool_choice=None)
    names = [each.name for each in tools]
    if choice != "required" and choice not in names:
        hint = f"the tools are {', '.join(names)}" if names else "the pod has no tools"
        raise InvalidInput(f"tool_choice: there is no tool {shown(choice)}", hint=hint)
    return settings


async def make_prompt(make: MakePrompt, ctx: ToolContext, resources: PodResources) -> str | None:
    """The system prompt that a function makes. Raises InvalidInput if it is not a text, and whatever the
    function raises.
    """
    from actors.tools.user_functions import call_function  # noqa: PLC0415 - paid for by whoever has one

    threads = resources.template.tools.toolbox.threads
    made = await call_function(partial(make, *_arguments(make, ctx)), threads, SECONDS)
    if made is not None and not isinstance(made, str):
        raise InvalidInput(f"system_prompt: the function must return a string, not {shown(made)}")
    return None if made is None else encodable(made)


async def validate(validator: Any, value: Any, ctx: ToolContext, resources: PodResources) -> Any:
    """What a validator returns for an answer: another one, or None if the answer stands. Raises whatever it
    raises.
    """
    if isinstance(validator, OutputCheck):
        if (why := await validator.why_not(value)) is not None:
            raise ModelRetry(why)
        return None
    from actors.tools.user_functions import call_function  # noqa: PLC0415 - the same

    threads = resources.template.tools.toolbox.threads
    return await call_function(partial(validator, value, *_arguments(validator, ctx, 1)), threads, SECONDS)


def _arguments(function: Any, ctx: ToolContext, before: int = 0) -> tuple[ToolContext, ...]:
    """The context as an argument, for a function that has a parameter for it after ``before`` others."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return ()
    taken = [each for each in parameters if each.kind in {each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD}]
    return (ctx,) if len(taken) > before else ()
