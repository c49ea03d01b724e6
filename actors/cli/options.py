"""Options that commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from actors.cli.model_names import complete_models
from actors.llm.address import base_url_of
from actors.sessions.urls import place_of
from protocol.closest import closest
from protocol.errors import ModelError, PolypodError, StoreError

if TYPE_CHECKING:
    from actors.cli.sessions.store_reader import Reading

#: Sessions whose pods are looked at for a name that was meant.
_LOOKED_THROUGH = 1000

F = TypeVar("F", bound=Callable[..., Any])


class Seconds(click.FloatRange):
    """A time in seconds. ``nan`` is inside every range, and is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return seconds


def checked_store(context: click.Context, option: click.Parameter, url: str | None) -> str | None:
    """A store's URL that can be one. Raises BadParameter."""
    try:
        if url is not None:
            place_of(url)
    except StoreError as error:
        raise _bad(context, option, error) from error
    return url


def checked_base_url(context: click.Context, option: click.Parameter, url: str | None) -> str | None:
    """A base URL that can be one. Raises BadParameter."""
    try:
        if url is not None:
            base_url_of(url)
    except ModelError as error:
        raise _bad(context, option, error) from error
    return url


def no_such_pod(pod: str, reading: Reading) -> click.UsageError:
    """The error where no session is of a pod of that name, with the names that may be meant."""
    names = dict.fromkeys(info.pod for info in reading.sessions(limit=_LOOKED_THROUGH))
    near = next((name for name in names if name.startswith(pod)), None) or closest(pod, names)
    meant = f"; did you mean {near!r}?" if near else ""
    return click.UsageError(f"no pod {pod!r} has a session in {reading.url}{meant}")


def _bad(context: click.Context, option: click.Parameter, error: PolypodError) -> click.BadParameter:
    """The error of a value, under the name by which it was given."""
    return click.BadParameter(
        f"{error.message}; {error.hint}", param_hint=source_of(context, option.name or "")
    )


def source_of(context: click.Context, name: str) -> str:
    """How the value of the option ``name`` was given: ``--base-url``, or ``$POLYPOD_BASE_URL``."""
    option = next((each for each in context.command.params if each.name == name), None)
    exported = context.get_parameter_source(name) is click.core.ParameterSource.ENVIRONMENT
    if exported and option is not None:
        return f"${option.envvar}"
    return f"--{name.replace('_', '-')}"


store = click.option(
    "--store",
    metavar="URL",
    callback=checked_store,
    envvar="POLYPOD_STORE",
    help="Where sessions are kept: sqlite:FILE, jsonl:DIR or memory:  [default: a file in your state folder]",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON lines for programs.")
memory = click.option(
    "--memory",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of lasting memory  [default: $POLYPOD_MEMORY, else one in your state folder]",
)
no_tools = click.option(
    "--no-tools",
    is_flag=True,
    help="Continue without the session's own tools and MCP servers.",
)
model_again = click.option(
    "-m",
    "--model",
    metavar="SCHEME/ID",
    shell_complete=complete_models,
    help="Use this model instead of the session's, from now on.",
)
base_url_again = click.option(
    "--base-url", metavar="URL", callback=checked_base_url, help="The URL of its server, including /v1."
)
model = click.option(
    "-m",
    "--model",
    metavar="SCHEME/ID",
    envvar="POLYPOD_MODEL",
    shell_complete=complete_models,
    help="The model that answers, like ollama/qwen3, openai/gpt-4.1 or offline  [default: the manifest's or "
    "the session's, else [local_model] of polypod.toml, else one of a server on this machine, else offline]",
)
base_url = click.option(
    "--base-url",
    metavar="URL",
    callback=checked_base_url,
    envvar="POLYPOD_BASE_URL",
    help="The URL of its server, including /v1.",
)
manifest = click.option(
    "--manifest",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A pod manifest in TOML; without one the pod works here, with the tools files, search and shell.",
)
profile = click.option(
    "--profile",
    metavar="NAME",
    envvar="POLYPOD_PROFILE",
    help="A [profile.NAME] of polypod.toml, which overrides model, tools, scope, budget, ….",
)
looked_at = click.option(
    "--manifest",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A pod manifest whose MCP servers are checked too.",
)
name = click.option("--name", help="The pod's name.")
allow = click.option(
    "--allow",
    metavar="DIR",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder that the pod may also read and write; may be given more than once.",
)


tools = click.option(
    "--tools",
    metavar="FILE.py|MODULE[:NAME]",
    multiple=True,
    help=(
        "Your own tools for the pod: all that a file or module makes with @tool, or the tool, "
        "function, tool source or list of that name; may be repeated. The scope does not confine "
        "them."
    ),
)


mcp = click.option(
    "--mcp",
    "mcp_files",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help=(
        "MCP servers whose tools the pod gets, in the JSON (mcpServers) that other clients read; "
        "may be repeated. They are not confined."
    ),
)


def typed(context: click.Context, *names: str) -> dict[str, Any]:
    """The options that were typed; those that come from the environment do not count."""
    command_line = click.core.ParameterSource.COMMANDLINE
    return {
        name: context.params[name] for name in names if context.get_parameter_source(name) is command_line
    }
