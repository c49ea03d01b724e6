"""Forms that a person fills in for a tool: what each field may be, and whether an answer fits; pure."""

from __future__ import annotations

import math
import re
from typing import Any

from protocol.errors import InvalidInput
from protocol.foreign import shown
from protocol.items import ToolCall
from protocol.recordable import recordable

#: What a field may be, by the type that its schema names, and what that is called.
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "string": ((str,), "a string"),
    "integer": ((int,), "a whole number"),
    "number": ((int, float), "a number"),
    "boolean": ((bool,), "true or false"),
    "array": ((list,), "a list"),
}
_ANY = ((str, int, float, bool, list, type(None)), "a value")
#: The keys of a schema with the least and the most of a value, and what is counted.
_BOUNDS = (
    ("minimum", "maximum", ""),
    ("minLength", "maxLength", " characters"),
    ("minItems", "maxItems", " values"),
)
_DATE = r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
#: How texts of some formats look.
_FORMATS = {
    "email": (r"[^@\s]+@[^@\s]+", "an address like ann@example.com"),
    "uri": (r"[A-Za-z][A-Za-z0-9+.-]*:\S+", "an address like https://example.com"),
    "date": (_DATE, "a date like 2031-01-31"),
    "date-time": (
        _DATE + r"[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)",
        "a time like 2031-01-31T12:00:00Z",
    ),
}


def checked_form(form: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """The answer, fit to be recorded and sent. Raises InvalidInput, which names the field. Anything else that
    the schema demands is left to the tool, which has to check it in any case.
    """
    answer = recordable(ToolCall("", "", answer)).arguments
    fields = form.get("properties")
    fields = fields if isinstance(fields, dict) else {}
    required = form.get("required")
    for name in required if isinstance(required, list) else ():
        if name not in answer:
            raise InvalidInput(
                f"the form requires {name!r}", hint=f"fill it in with arguments={{{name!r}: …}}"
            )
    for name, value in answer.items():
        if name not in fields:
            raise InvalidInput(f"the form has no field {name!r}; its fields: {', '.join(fields) or 'none'}")
        if (expected := misfit(value, fields[name])) is not None:
            raise InvalidInput(f"the field {name!r} must be {expected}, not {shown(value, 60)}")
    return answer


def misfit(value: Any, schema: Any) -> str | None:
    """What is expected instead of a field's value; None if it fits."""
    schema = schema if isinstance(schema, dict) else {}
    kind = schema.get("type")
    types, called = _TYPES.get(kind, _ANY) if isinstance(kind, str) else _ANY
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        return called
    if isinstance(value, float) and not math.isfinite(value):
        return called
    choices, given = choices_of(schema), value if isinstance(value, list) else [value]
    values = [each for each, _ in choices]
    if values and any(each not in values for each in given):
        said = [str(each) if str(each) == called else f"{each} ({called})" for each, called in choices]
        return f"{'some' if given is value else 'one'} of {', '.join(said)}"
    if not _is_within_bounds(value, schema):
        return f"{called} {bounds_words(schema)}"
    pattern, looks = _FORMATS.get(str(schema.get("format")), ("", ""))
    if pattern and isinstance(value, str) and re.fullmatch(pattern, value) is None:
        return looks
    return None


def choices_of(schema: dict[str, Any]) -> list[tuple[Any, str]]:
    """The values that a field (or each item of a list) may have, with their labels; empty if any value is
    allowed.
    """
    within = schema.get("items") if schema.get("type") == "array" else schema
    within = within if isinstance(within, dict) else {}
    named = next((each for key in ("oneOf", "anyOf") if isinstance(each := within.get(key), list)), [])
    if named and all(isinstance(each, dict) and "const" in each for each in named):
        return [(each["const"], str(each.get("title") or each["const"])) for each in named]
    values, names = within.get("enum"), within.get("enumNames")
    if not isinstance(values, list):
        return []
    called = names if isinstance(names, list) and len(names) == len(values) else values
    return [(value, str(name)) for value, name in zip(values, called, strict=True)]


def bounds_words(schema: dict[str, Any]) -> str:
    """The bounds of a field, in words; empty if there are none."""
    for least, most, counted in _BOUNDS:
        low, high = _number(schema.get(least)), _number(schema.get(most))
        if low is not None and high is not None:
            return f"{'of' if counted else 'from'} {low} to {high}{counted}"
        if low is not None or high is not None:
            return f"of at {f'least {low}' if high is None else f'most {high}'}{counted}"
    return ""


def _is_within_bounds(value: Any, schema: dict[str, Any]) -> bool:
    size = len(value) if isinstance(value, str | list) else value
    if _number(size) is None:
        return True
    pairs = [(_number(schema.get(least)), _number(schema.get(most))) for least, most, _ in _BOUNDS]
    return all((low is None or low <= size) and (high is None or size <= high) for low, high in pairs)


def _number(value: Any) -> int | float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
