"""A form that a person fills in at the terminal, field by field; pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from actors.cli.approvals.question import given_lines, wrapped
from actors.cli.display.event_format import Line
from actors.cli.display.format import cut, visible
from actors.pod.approvals.forms import bounds_words, choices_of, misfit
from protocol.events import ApprovalRequested

#: What is written before the answer to a question with a form.
FORM_PROMPT = "answer it? (y/n) "
_HELP = "y answers it, field by field · n declines · text after n goes to the model"
#: What leaves a field out that has a default.
_NONE = "-"
#: Characters of choices, and of a default, that stand before a value.
_CHOICES, _DEFAULT = 300, 60
_TRUE, _FALSE = frozenset({"y", "yes", "true"}), frozenset({"n", "no", "false"})


class Field(NamedTuple):
    """A field of a form, as a person is asked for it."""

    name: str
    schema: dict[str, Any]
    required: bool

    @property
    def prompt(self) -> str:
        """What stands before its value."""
        about = [part for part in (self._kind, bounds_words(self.schema), self._without) if part]
        return visible(f"{self.name} ({', '.join(about)}): " if about else f"{self.name}: ")

    @property
    def default(self) -> Any:
        """What it is where nothing is typed; None where that is not said, or no value of it."""
        value = self.schema.get("default")
        return None if value is None or misfit(value, self.schema) is not None else value

    @property
    def _kind(self) -> str:
        """What it is to be, or what may be chosen."""
        choices = " | ".join(called for _, called in choices_of(self.schema))
        several = self.schema.get("type") == "array"
        if choices:
            return cut(choices, _CHOICES) + (", a comma-separated list" if several else "")
        kind = self.schema.get("format") or self.schema.get("type")
        return "yes or no" if kind == "boolean" else str(kind or "")

    @property
    def _without(self) -> str:
        """What becomes of it where nothing is typed."""
        if self.default is None:
            return "" if self.required else "optional"
        called = _typed(self.default, self.schema)
        return f"Enter for {cut(called, _DEFAULT)}" + ("" if self.required else f", {_NONE} for none")


class Filled(NamedTuple):
    """What a person has filled a form in with."""

    arguments: dict[str, Any]


class Unreadable(ValueError):  # noqa: N818 - reported in words
    """What a person wrote is not a value of that field."""


def fields_of(form: dict[str, Any]) -> list[Field]:
    """The fields of a form, in its order."""
    properties, required = form.get("properties"), form.get("required")
    named = properties if isinstance(properties, dict) else {}
    needed = required if isinstance(required, list) else []
    return [
        Field(name, schema if isinstance(schema, dict) else {}, name in needed)
        for name, schema in named.items()
    ]


def read_value(text: str, field: Field) -> Any:
    """The value that a line means; None where the field is left out. Raises Unreadable, which says what is
    expected.
    """
    text = text.strip()
    if not field.required and text == ("" if field.default is None else _NONE):
        return None
    if not text and field.default is not None:
        return field.default
    if not text:
        raise Unreadable("an answer: this field is required")
    value = _value(text, field.schema)
    if (expected := misfit(value, field.schema)) is not None:
        raise Unreadable(expected)
    return value


def _value(text: str, schema: dict[str, Any]) -> Any:
    """What a line means, which need not fit."""
    match schema.get("type"):
        case "boolean":
            return {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}.get(text.lower(), text)
        case "integer" | "number" as kind:
            try:
                return int(text) if kind == "integer" else float(text)
            except ValueError:
                return text
        case "array":
            return [_chosen(each.strip(), schema) for each in text.split(",") if each.strip()]
    return _chosen(text, schema)


def _chosen(text: str, schema: dict[str, Any]) -> Any:
    """The value of which people say so."""
    named = choices_of(schema)
    alike = [value for value, called in named if text in {str(value), called}] or [
        value for value, called in named if called.casefold() == text.casefold()
    ]
    return alike[0] if alike else text


def _typed(value: Any, schema: dict[str, Any]) -> str:
    """What a person would type for a value."""
    if isinstance(value, list):
        return ", ".join(_typed(each, schema) for each in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return next((called for each, called in choices_of(schema) if each == value), str(value))


def form_lines(request: ApprovalRequested, width: int, *, behind: int = 0) -> Iterator[Line]:
    """The question on lines of at most ``width`` columns."""
    yield from wrapped("note", f"{request.tool}, running for pod {request.pod}, has a question", width)
    for line in (request.why or "").split("\n"):
        yield from given_lines(line, width)
    for field in fields_of(request.form or {}):
        description = field.schema.get("description") or field.schema.get("title")
        if description:
            yield from given_lines(f"{field.name}: {description}", width)
    if behind:
        yield from wrapped("quiet", f"{behind} more waiting", width)
    yield from wrapped("quiet", _HELP, width)
