"""A function's signature as the JSON Schema of its arguments, and the way from arguments to a call."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Union

import msgspec
from msgspec import UNSET, Meta, UnsetType

from protocol.errors import ToolArgumentsInvalid, ToolDefinitionError

#: A parameter of this name gets the ToolContext, whatever its annotation.
_CONTEXT = "ctx"
_UNSUITED: dict[Any, str] = {
    inspect.Parameter.VAR_POSITIONAL: "*arguments have no schema",
    inspect.Parameter.VAR_KEYWORD: "**arguments have no schema",
    inspect.Parameter.POSITIONAL_ONLY: "arguments are passed by name, this one cannot be",
}


class Arguments:
    """What a tool's arguments look like, built once for a tool.

    ``schema`` is their JSON Schema, ``context`` the name of the parameter that gets the ToolContext
    (None: the function does not want it).
    """

    __slots__ = ("_struct", "context", "schema")

    def __init__(
        self, label: str, function: Callable[..., Any], words: Mapping[str, str], context: type
    ) -> None:
        """``label`` is the tool's name for messages, ``words`` describes parameters, ``context`` is
        the type of the one that is handed in.

        Raises ToolDefinitionError for a signature that no schema can express.
        """
        hints = _hints(function, label, context)
        wanted = [_checked(each, label) for each in inspect.signature(function).parameters.values()]
        injected = [p for p in wanted if p.name == _CONTEXT or _is_type(hints.get(p.name), context)]
        self.context = injected[0].name if injected else None
        fields = [_field(p, hints, words) for p in wanted if p.name != self.context]
        defaults = {p.name: p.default for p in wanted if p.default is not p.empty}
        self._struct = msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)
        self.schema = _schema(self._struct, defaults, label)

    def convert(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """``arguments`` as the function's keyword arguments, typed; what was left out stays out.

        Raises ToolArgumentsInvalid, which names the argument and what was expected.
        """
        try:
            struct = msgspec.convert(arguments, self._struct, dec_hook=_decode_custom)
        except msgspec.ValidationError as error:
            raise ToolArgumentsInvalid(self._explained(str(error))) from error
        values = msgspec.structs.asdict(struct)
        if UNSET in values.values():
            return {name: value for name, value in values.items() if value is not UNSET}
        return values

    def _explained(self, words: str) -> str:
        """Msgspec's words with the argument in front."""
        known = ", ".join(self._struct.__struct_fields__) or "none"
        what, _, where = words.partition(" - at `$")
        where = where.rstrip("`").lstrip(".")
        prefix = f"{where}: " if where else ""
        if found := re.match(r"Object contains unknown field `(.*)`", what, re.DOTALL):
            of = "" if where else f"; the arguments are: {known}"
            return f"{prefix}unknown argument {found[1]!r}{of}"
        if found := re.match(r"Object missing required field `(.*)`", what, re.DOTALL):
            return f"{prefix}missing argument {found[1]!r}"
        return f"{prefix}{what[0].lower()}{what[1:]}"


def _hints(function: Callable[..., Any], label: str, context: type) -> dict[str, Any]:
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        # The context's type may be imported for type checkers alone.
        return typing.get_type_hints(target, localns={context.__name__: context}, include_extras=True)
    except NameError as error:
        raise ToolDefinitionError(
            f"tool {label}: the annotation {error.name!r} cannot be resolved",
            hint="annotate with names of the function's module",
        ) from error


def _checked(parameter: inspect.Parameter, label: str) -> inspect.Parameter:
    why = _UNSUITED.get(parameter.kind)
    if why is not None:
        raise ToolDefinitionError(f"tool {label}: {parameter}: {why}")
    if parameter.name == "self":
        raise ToolDefinitionError(
            f"tool {label}: a method has no instance yet where its class is defined",
            hint="give the bound method: tool(thing.method)",
        )
    return parameter


def _is_type(hint: Any, wanted: type) -> bool:
    """Whether an annotation is ``wanted``, or ``wanted`` or None."""
    return hint is wanted or wanted in typing.get_args(hint)


def _field(
    parameter: inspect.Parameter, hints: dict[str, Any], words: Mapping[str, str]
) -> tuple[str, Any] | tuple[str, Any, Any]:
    """A struct field for a parameter; one with a default may stay unset, so the function's own
    default is what counts, of whatever type it is.
    """
    hint = hints.get(parameter.name, Any)
    text = words.get(parameter.name)
    if text and not any(isinstance(m, Meta) and m.description for m in getattr(hint, "__metadata__", ())):
        hint = Annotated[hint, Meta(description=text)]
    if parameter.default is parameter.empty:
        return (parameter.name, hint)
    return (parameter.name, Union[hint, UnsetType], UNSET)  # noqa: UP007 - a type known only now


def _schema(struct: type[msgspec.Struct], defaults: dict[str, Any], label: str) -> dict[str, Any]:
    try:
        (root,), shapes = msgspec.json.schema_components(
            (struct,), schema_hook=_schema_custom, ref_template="#/$defs/{name}"
        )
    except TypeError as error:
        raise ToolDefinitionError(
            f"tool {label}: an argument has a type that JSON cannot express: {error}",
            hint="use plain types, dataclasses or msgspec Structs",
        ) from error
    schema = shapes.pop(root["$ref"].rpartition("/")[2])
    schema.pop("title", None)
    for name, default in defaults.items():
        if name in schema["properties"] and isinstance(default, str | int | float | bool):
            schema["properties"][name]["default"] = default
    return {**schema, "$defs": shapes} if shapes else schema


def _schema_custom(kind: type) -> dict[str, Any]:
    if kind is Path:
        return {"type": "string"}
    raise NotImplementedError(kind)


def _decode_custom(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(kind)


_SECTION = re.compile(r"^(Args|Arguments|Parameters):\s*$")
_GOOGLE = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")
_SPHINX = re.compile(r"^:param\s+(?:[\w\[\], |.]+\s+)?(\w+):\s*(.*)$")
_SPHINX_TYPE = re.compile(r"^:type\s+\w+:")


def described(docstring: str | None) -> tuple[str, dict[str, str]]:
    """A docstring's text without the words about arguments, and those words by argument.

    Read are an ``Args:`` section as Google writes it and ``:param name:`` lines as Sphinx does.
    """
    lines = inspect.cleandoc(docstring or "").splitlines()
    lines, google = _google(lines)
    lines, sphinx = _sphinx(lines)
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    return text, {name: " ".join(filter(None, words)) for name, words in (google | sphinx).items()}


def _google(lines: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    start = next((n for n, line in enumerate(lines) if _SECTION.match(line)), len(lines))
    end = next((n for n in range(start + 1, len(lines)) if lines[n][:1].strip()), len(lines))
    words: dict[str, list[str]] = {}
    current: list[str] = []
    section = [line for line in lines[start + 1 : end] if line.strip()]
    for line in section:
        found = _GOOGLE.match(line.strip()) if _indent(line) == _indent(section[0]) else None
        if found:
            current = words[found[1]] = [found[2]]
        else:
            current.append(line.strip())
    return lines[:start] + lines[end:], words


def _sphinx(lines: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    rest: list[str] = []
    words: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in lines:
        found = _SPHINX.match(line)
        if found:
            current = words[found[1]] = [found[2]]
        elif _SPHINX_TYPE.match(line):
            current = []
        elif current is not None and line.strip() and _indent(line):
            current.append(line.strip())
        else:
            current = None
            rest.append(line)
    return rest, words


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
