"""A function's signature as the JSON Schema of its arguments, and the way from arguments to a call."""

from __future__ import annotations

import builtins
import enum
import functools
import inspect
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Union

import msgspec
from msgspec import UNSET, Meta, UnsetType

from actors.runtime.datatypes import datatypes, json_schema, pydantic_types
from protocol.errors import ToolArgumentsInvalid, ToolDefinitionError
from protocol.foreign import shown
from protocol.text import encodable_json

#: A parameter of this name gets the ToolContext, whatever its annotation.
_CONTEXT = "ctx"
_UNSUITED: dict[Any, str] = {
    inspect.Parameter.VAR_POSITIONAL: "*args have no schema",
    inspect.Parameter.VAR_KEYWORD: "**kwargs have no schema",
    inspect.Parameter.POSITIONAL_ONLY: "arguments are passed by name, but this one is positional-only",
}
#: From Python 3.14 on annotations are evaluated when they are asked for. The options that leave a name there
#: which cannot be resolved, rather than raise NameError.
_LAZILY: dict[str, dict[str, Any]] = {}
if sys.version_info >= (3, 14):
    import annotationlib

    _LAZILY = {
        "hints": {"format": annotationlib.Format.FORWARDREF},
        "signature": {"annotation_format": annotationlib.Format.FORWARDREF},
    }


#: The type of ``deps`` in the annotation of a tool's context.
_IN_BRACKETS = r"(?<=ToolContext)\[[^\]]*\]"


class Arguments:
    """What a tool's arguments look like, built once for a tool.

    ``schema`` is their JSON Schema, ``context`` the name of the parameter that gets the ToolContext
    (None: the function does not want it), ``returns`` what the function is annotated to return.
    """

    __slots__ = ("_defaults", "_foreign", "_struct", "context", "returns", "schema")

    def __init__(
        self, label: str, function: Callable[..., Any], words: Mapping[str, str], context: type
    ) -> None:
        """``label`` is the tool's name for messages, ``words`` describes parameters, ``context`` is
        the type of the one that is handed in.

        Raises ToolDefinitionError for a signature that no schema can express.
        """
        hints, wanted, self.context = _wanted(function, label, context)
        self.returns = hints.get("return", Any)
        parameters = [_Parameter(p, hints, words) for p in wanted]
        #: Parameters whose types another library reads, by name.
        self._foreign: dict[str, datatypes.DataType] = {}
        #: What fills in for a parameter that was left out, where the function's own default does not.
        self._defaults = {p.name: p.fill for p in parameters if p.fill is not None}
        for each in parameters:
            if pydantic_types.owns(each.hint):
                self._foreign[each.name] = _typed(each, label)
        fields = [each.field(foreign=each.name in self._foreign) for each in parameters]
        self._struct = msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)
        self.schema = self._schema(parameters, label)

    def convert(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """``arguments`` as the function's keyword arguments, typed; what was left out stays out.

        Raises ToolArgumentsInvalid, which names the argument and what was expected.
        """
        try:
            struct = datatypes.convert(arguments, self._struct)
        except msgspec.ValidationError as error:
            known = self._struct.__struct_fields__
            raise ToolArgumentsInvalid(datatypes.explain(error, known)) from error
        except datatypes.Unfit as error:
            raise ToolArgumentsInvalid(str(error)) from error
        values = msgspec.structs.asdict(struct)
        if UNSET in values.values():
            values = {name: value for name, value in values.items() if value is not UNSET}
        if self._foreign:
            values.update(self._converted(values))
            for name, fill in self._defaults.items():
                if name not in values:
                    values[name] = fill()
        return values

    def _converted(self, values: dict[str, Any]) -> dict[str, Any]:
        converted: dict[str, Any] = {}
        for name, kind in self._foreign.items():
            if name in values:
                try:
                    converted[name] = kind.convert(values[name])
                except datatypes.Unfit as error:
                    inside = re.match(r"[\w.\[\]]+: ", str(error))
                    dot = "." if inside and not inside[0].startswith("[") else "" if inside else ": "
                    raise ToolArgumentsInvalid(f"{name}{dot}{error}") from error
        return converted

    def _schema(self, parameters: list[_Parameter], label: str) -> dict[str, Any]:
        try:
            schema = datatypes.known_schema(self._struct)
        except TypeError as error:
            for each in parameters:
                if each.name not in self._foreign:
                    _check_known(each, label)
            raise _no_schema(label, "an argument", error) from error
        schema.pop("title", None)
        definitions = schema.pop("$defs", {})
        for name, kind in self._foreign.items():
            own = json_schema.merge(dict(kind.schema), definitions)
            schema["properties"][name] = {**own, **schema["properties"][name]}
        for each in parameters:
            default = _shown_default(each, self._foreign.get(each.name))
            if default is not UNSET:
                schema["properties"][each.name]["default"] = default
        return {**schema, "$defs": definitions} if definitions else schema


class GivenArguments:
    """Arguments of a schema that was given, as a server or a database gives it: the function gets them all in
    one parameter, as the model sent them.
    """

    __slots__ = ("_name", "context", "returns", "schema")

    def __init__(
        self, label: str, function: Callable[..., Any], schema: dict[str, Any], context: type
    ) -> None:
        """As for ``Arguments``. Raises ToolDefinitionError for what is no such function, or no schema."""
        hints, wanted, self.context = _wanted(function, label, context)
        if len(wanted) != 1:
            raise ToolDefinitionError(
                f"tool {label}: with an input_schema its function must take one parameter, for "
                f"all arguments as a dict, and optionally ctx; it takes {len(wanted)}"
            )
        self._name = wanted[0].name
        self.returns = hints.get("return", Any)
        self.schema = _checked_schema(schema, label)

    def convert(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """``arguments`` as the function's one keyword argument: a copy, since the history has these."""
        from copy import deepcopy  # noqa: PLC0415 - paid for by tools that take all as one

        return {self._name: deepcopy(arguments)}


class _Parameter:
    """A parameter of a tool: its type, and what stands for it where it is left out."""

    __slots__ = ("default", "fill", "hint", "name", "required")

    def __init__(self, parameter: inspect.Parameter, hints: dict[str, Any], words: Mapping[str, str]) -> None:
        self.name = parameter.name
        self.hint = hints.get(self.name, Any)
        self.default: Any = parameter.default
        self.required = self.default is parameter.empty
        #: Makes the default that pydantic's ``Field(…)`` in the place of a default speaks of.
        self.fill: Callable[[], Any] | None = None
        if pydantic_types.is_field(self.default):
            default: Any = self.default
            self.hint = Annotated[self.hint, default]
            self.required = default.is_required()
            self.default = parameter.empty if self.required else default.default
            self.fill = None if self.required else lambda: default.get_default(call_default_factory=True)
        elif self.default is None and self.hint is not Any:
            self.hint = _or_none(self.hint)  # as everybody means it who writes ``x: int = None``
        metadata = getattr(self.hint, "__metadata__", ())
        text = _words_in(metadata) or words.get(self.name)
        if text and not any(getattr(each, "description", None) for each in metadata):
            self.hint = Annotated[self.hint, Meta(description=text)]

    def field(self, *, foreign: bool) -> tuple[str, Any] | tuple[str, Any, Any]:
        """A struct field; one with a default may stay unset, so the function's own default is what
        counts, of whatever type it is.
        """
        hint = self.hint
        if foreign:
            meta = [m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Meta)]
            hint = Annotated[(Any, *meta)] if meta else Any
        if self.required:
            return (self.name, hint)
        return (self.name, Union[hint, UnsetType], UNSET)  # noqa: UP007 - a type known only now


def _or_none(hint: Any) -> Any:
    """A type, or None; what an annotation says besides is said of both."""
    metadata = getattr(hint, "__metadata__", ())
    plain: Any = hint.__origin__ if metadata else hint
    either: Any = Union[plain, None]  # noqa: UP007 - a type known only now
    return Annotated[(either, *metadata)] if metadata else either


def _words_in(metadata: tuple[Any, ...]) -> str | None:
    """The words that an annotation has about its parameter: ``Annotated[str, "words"]``, or a ``Doc`` of
    ``typing_extensions``.
    """
    for each in metadata:
        words = each if isinstance(each, str) else getattr(each, "documentation", None)
        if isinstance(words, str) and words.strip():
            return words.strip()
    return None


def _wanted(
    function: Callable[..., Any], label: str, context: type
) -> tuple[dict[str, Any], list[inspect.Parameter], str | None]:
    """A function's type hints, the parameters that a model fills, and the name of the one that gets the
    context. Raises ToolDefinitionError.
    """
    hints = _hints(function, label, context)
    parameters = [_checked(each, label) for each in _signature(function, label).parameters.values()]
    injected = [p.name for p in parameters if p.name == _CONTEXT or _is_type(hints.get(p.name), context)]
    name = injected[0] if injected else None
    return hints, [p for p in parameters if p.name != name], name


def _checked_schema(schema: Any, label: str) -> dict[str, Any]:
    """The schema, encodable. Raises ToolDefinitionError for what is none of an object."""
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise ToolDefinitionError(
            f'tool {label}: input_schema: expected the JSON Schema of an object, {{"type": "object", …}}, '
            f"got {shown(schema)}"
        )
    try:
        checked: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(encodable_json(schema)))
    except (TypeError, ValueError, RecursionError) as error:
        raise ToolDefinitionError(
            f"tool {label}: input_schema: it cannot be written as JSON: {error}"
        ) from error
    return checked


def _hints(function: Callable[..., Any], label: str, context: type) -> dict[str, Any]:
    function = unbound(function)
    target: Any = function
    if inspect.isclass(function):
        target = function.__init__
    elif not inspect.isroutine(function):
        target = type(function).__call__
    try:
        hints = _resolved(target, _names_for(target, context))
    except NameError as error:
        raise ToolDefinitionError(
            f"tool {label}: the annotation {error.name!r} cannot be resolved",
            hint="use names that the function's module defines or imports",
        ) from error
    except Exception as error:
        raise ToolDefinitionError(f"tool {label}: the annotations cannot be read: {error}") from error
    if inspect.isclass(function):
        hints["return"] = function  # not what its ``__init__`` returns
    return hints


def _names_for(target: Any, context: type) -> dict[str, Any]:
    """What annotations may name that stands in no module at run time: the context, and in its brackets a type
    that was imported for type checkers alone.
    """
    names: dict[str, Any] = {context.__name__: context}
    texts = [each for each in getattr(target, "__annotations__", {}).values() if isinstance(each, str)]
    others = " ".join(re.sub(_IN_BRACKETS, "", text) for text in texts)
    known = getattr(target, "__globals__", {})
    for inside in (found for text in texts for found in re.findall(_IN_BRACKETS, text)):
        for name in re.findall(r"[^\W\d]\w*", inside):
            unknown = name not in known and not hasattr(builtins, name)
            if unknown and not re.search(rf"\b{name}\b", others):
                names[name] = Any
    return names


def unbound(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function within ``functools.partial``: it has the name, the docstring and the annotations."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _resolved(target: Callable[..., Any], names: dict[str, Any]) -> dict[str, Any]:
    """The type hints; ``names`` may be imported for type checkers alone."""
    try:
        return typing.get_type_hints(target, localns=names, include_extras=True)
    except NameError:
        if not _LAZILY:
            raise
        # Annotations without quotes were evaluated as the code stands; here they are with ``names`` as well.
        hints = typing.get_type_hints(target, localns=names, include_extras=True, **_LAZILY["hints"])
        if any(isinstance(hint, typing.ForwardRef) for hint in hints.values()):
            raise
        return hints


def _signature(function: Callable[..., Any], label: str) -> inspect.Signature:
    try:
        return inspect.signature(function, **_LAZILY.get("signature", {}))
    except (TypeError, ValueError) as error:
        raise ToolDefinitionError(
            f"tool {label}: its parameters are unknown: {error}", hint="wrap it in a function"
        ) from error


def _checked(parameter: inspect.Parameter, label: str) -> inspect.Parameter:
    why = _UNSUITED.get(parameter.kind)
    if why is not None:
        raise ToolDefinitionError(
            f"tool {label}: {parameter}: {why}",
            hint="a model names each argument: wrap it in a function with one parameter for each",
        )
    if parameter.name == "self":
        raise ToolDefinitionError(
            f"tool {label}: inside its class definition a method has no instance yet",
            hint="pass the bound method: tool(thing.method)",
        )
    return parameter


def _is_type(hint: Any, wanted: type) -> bool:
    """Whether an annotation is ``wanted``, with or without its own type in brackets, or that or None."""
    origin = typing.get_origin(hint)
    if hint is wanted or origin is wanted:
        return True
    unions = (typing.Union, types.UnionType, Annotated)
    return origin in unions and any(_is_type(each, wanted) for each in typing.get_args(hint))


def _typed(parameter: _Parameter, label: str) -> datatypes.DataType:
    try:
        return datatypes.data_type(parameter.hint)
    except TypeError as error:
        raise _no_schema(label, parameter.name, error) from error


def _check_known(parameter: _Parameter, label: str) -> None:
    """Raise ToolDefinitionError, which names the parameter, if its own type has no schema."""
    try:
        datatypes.known_schema(parameter.hint)
    except TypeError as error:
        raise _no_schema(label, parameter.name, error) from error


def _no_schema(label: str, what: str, error: TypeError) -> ToolDefinitionError:
    return ToolDefinitionError(
        f"tool {label}: {what} has a type that JSON cannot express: {error}",
        hint="use plain types, dataclasses, pydantic models or msgspec Structs",
    )


def _shown_default(parameter: _Parameter, foreign: datatypes.DataType | None) -> Any:
    """The default as it stands in the schema: a plain value that the type itself would take; else UNSET."""
    default = parameter.default
    if isinstance(default, enum.Enum):
        default = default.value
    if parameter.required or not isinstance(default, str | int | float | bool):
        return UNSET
    if isinstance(default, float) and not math.isfinite(default):
        return UNSET  # JSON has no such number
    try:
        if foreign is not None:
            foreign.convert(default)
        else:
            datatypes.convert(default, parameter.hint)
    except (msgspec.ValidationError, datatypes.Unfit):
        return UNSET
    return encodable_json(default)
