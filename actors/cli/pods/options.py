"""The options by which ``run``, ``chat`` and ``resume`` say what a pod is to be, gathered into one value."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from msgspec import Struct

from actors.cli import options
from actors.cli.display.choice import Loudness
from actors.cli.pods.amounts import EXPECTED, Amount, read_amount
from actors.cli.pods.answer_schema import answer_type
from actors.cli.pods.pictures import picture
from protocol.errors import InvalidInput
from protocol.items import ImagePart

F = TypeVar("F", bound=Callable[..., Any])


class Given(Struct, frozen=True):
    """What the options of a command say of a pod; None and empty where they say nothing.

    ``model`` and ``base_url`` are what was typed or exported, ``typed`` names those that were typed.
    """

    manifest: Path | None = None
    name: str | None = None
    model: str | None = None
    base_url: str | None = None
    allow: tuple[Path, ...] = ()
    tools: tuple[str, ...] = ()
    mcp_files: tuple[Path, ...] = ()
    store: str | None = None
    system: str | None = None
    no_instructions: bool = False
    max_steps: int | None = None
    budget: tuple[Amount, ...] = ()
    no_tools: bool = False
    profile: str | None = None
    typed: frozenset[str] = frozenset()


def _amounts(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> tuple[Amount, ...]:
    try:
        amounts = tuple(map(read_amount, texts))
    except ValueError as error:
        raise click.BadParameter(str(error), context, option) from error
    if len({each.kind for each in amounts}) < len(amounts):
        raise click.BadParameter("the same kind of budget is given twice", context, option)
    return amounts


def _pictures(
    context: click.Context, option: click.Parameter, places: tuple[str, ...]
) -> tuple[ImagePart, ...]:
    try:
        return tuple(map(picture, places))
    except InvalidInput as error:
        hint = f"; {error.hint}" if error.hint else ""
        raise click.BadParameter(f"{error.message}{hint}", context, option) from error


max_steps = click.option(
    "--max-steps",
    metavar="N",
    type=click.IntRange(min=1),
    help="The maximum number of requests to the model in one run.",
)
budget = click.option(
    "--budget",
    metavar="AMOUNT",
    multiple=True,
    callback=_amounts,
    help=f"What the pod may use in total; {EXPECTED}. May be repeated, once for each kind.",
)
system = click.option("-s", "--system", metavar="TEXT", help="The system prompt, instead of the default one.")
no_instructions = click.option(
    "--no-instructions", is_flag=True, help="Do not read the project's AGENTS.md files."
)
images = click.option(
    "--image",
    "images",
    metavar="FILE|URL",
    multiple=True,
    callback=_pictures,
    help="An image to attach; may be repeated.",
)
files = click.option(
    "-f",
    "--file",
    "files",
    metavar="FILE",
    multiple=True,
    help="A text file or image to attach; - reads it from standard input; may be repeated.",
)
schema = click.option(
    "--schema",
    "answer",
    metavar="SCHEMA",
    callback=answer_type,
    help="The answer is JSON of this shape: a JSON Schema, a file with one, or names, like "
    "'name, age int, bio: in a line'.",
)


def of_a_pod(*, goes_on: bool = True, is_new: bool = True) -> Callable[[F], F]:
    """The options of commands that make a pod (``is_new``), go on with one, or do either: the command gets
    them as ``given``.
    """
    of_a_model = (options.model, options.base_url)
    of_new = (options.manifest, options.profile, *of_a_model, options.name, system, no_instructions)
    again = (options.model_again, options.base_url_again)
    of_both = (options.allow, options.tools, options.mcp, max_steps, budget)
    chosen = (
        *(of_new if is_new else again),
        *of_both,
        *((options.no_tools,) if goes_on else ()),
        options.store,
    )

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def gathered(**values: Any) -> Any:
            context = click.get_current_context()
            mine = {name: values.pop(name) for name in Given.__struct_fields__ if name in values}
            typed = frozenset(options.typed(context, *mine))
            return command(given=Given(**mine, typed=typed), **values)

        decorated: Any = gathered
        for option in reversed(chosen):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


def loudness(command: F) -> F:
    """``-q`` and ``-v``: the command gets them, and ``--json``, as ``loudness`` and ``as_json``."""

    @functools.wraps(command)
    def gathered(*, quiet: bool, verbose: bool, as_json: bool, **values: Any) -> Any:
        if quiet + verbose + as_json > 1:
            raise click.UsageError("--quiet, --verbose and --json exclude each other")
        chosen: Loudness = "quiet" if quiet else "verbose" if verbose else "normal"
        return command(loudness=chosen, as_json=as_json, **values)

    decorated: Any = gathered
    for option in (
        options.as_json,
        click.option("-v", "--verbose", is_flag=True, help="Show reasoning, results and tokens too."),
        click.option("-q", "--quiet", is_flag=True, help="Show only the answer and errors."),
    ):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]
