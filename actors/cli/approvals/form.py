"""A form that a person fills in at the terminal, field by field; pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from actors.cli.approvals.question import given_lines, wrapped
from actors.cli.display.event_format import Line
from actors.cli.display.format import visible
from protocol.events import ApprovalRequested

#: What is written before the answer to a question with a form.
FORM_PROMPT = "answer it? (y/n) "
_HELP = "y answers it, field by field · n declines · words behind n go to the model"
_TRUE, _FALSE = frozenset({"y", "yes", "true"}), frozenset({"n", "no", "false"})


class Field(NamedTuple):
    """A field of a form, as a person is asked for it."""

    name: str
    schema: dict[str, Any]
    required: bool

    @property
    def prompt(self) -> str:
        """What stands before its value."""
        about = [self.schema.get("type"), *([] if self.required else ["may be left empty"])]
        choices = self.schema.get("enum")
        if isinstance(choices, list):
            about = [" | ".join(map(str, choices)), *about[1:]]
        words = ", ".join(str(each) for each in about if each)
        return visible(f"{self.name} ({words}): " if words else f"{self.name}: ")


class Filled(NamedTuple):
    """What a person has filled a form in with."""

    arguments: dict[str, Any]


class Unreadable(ValueError):  # noqa: N818 - reported in words
    """What a person wrote is no value of that field."""


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
    """The value that a line means. Raises Unreadable, which says what is expected."""
    text = text.strip()
    match field.schema.get("type"):
        case "boolean":
            if text.lower() in _TRUE | _FALSE:
                return text.lower() in _TRUE
            raise Unreadable("y or n")
        case "integer" | "number" as kind:
            try:
                return int(text) if kind == "integer" else float(text)
            except ValueError:
                raise Unreadable("a whole number" if kind == "integer" else "a number") from None
        case "array":
            return [each.strip() for each in text.split(",") if each.strip()]
    choices = field.schema.get("enum")
    if isinstance(choices, list) and text not in choices:
        raise Unreadable(f"one of {', '.join(map(str, choices))}")
    return text


def form_lines(request: ApprovalRequested, width: int, *, behind: int = 0) -> Iterator[Line]:
    """The question on lines of at most ``width`` columns."""
    yield from wrapped("note", f"{request.tool}, at work for pod {request.pod}, has a question", width)
    for line in (request.why or "").split("\n"):
        yield from given_lines(line, width)
    for field in fields_of(request.form or {}):
        description = field.schema.get("description") or field.schema.get("title")
        if description:
            yield from given_lines(f"{field.name}: {description}", width)
    if behind:
        yield from wrapped("quiet", f"{behind} more behind it", width)
    yield from wrapped("quiet", _HELP, width)
