"""Forms that a person fills in for a tool: an answer is checked before it is recorded; pure."""

from __future__ import annotations

from typing import Any

from protocol.errors import InvalidInput
from protocol.foreign import shown
from protocol.items import ToolCall
from protocol.recordable import recordable

#: What a field may be, by the type that its schema names.
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
}
_VALUES = (str, int, float, bool, list, type(None))


def checked_form(form: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """The answer as it may be recorded and sent. Raises InvalidInput, which names the field.

    What else the schema wants the tool checks itself, since it has to in any case.
    """
    answer = recordable(ToolCall("", "", answer)).arguments
    fields = form.get("properties")
    fields = fields if isinstance(fields, dict) else {}
    required = form.get("required")
    for name in required if isinstance(required, list) else ():
        if name not in answer:
            raise InvalidInput(f"the form wants {name!r}", hint=f"arguments={{{name!r}: …}} fill it in")
    for name, value in answer.items():
        if name not in fields:
            raise InvalidInput(f"the form has no field {name!r}; its fields: {', '.join(fields) or 'none'}")
        _check(name, value, fields[name])
    return answer


def _check(name: str, value: Any, schema: Any) -> None:
    schema = schema if isinstance(schema, dict) else {}
    kind = schema.get("type")
    wanted = _TYPES.get(kind, _VALUES) if isinstance(kind, str) else _VALUES
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        raise InvalidInput(f"the field {name!r} is a {kind}, not {shown(value, 60)}")
    choices = schema.get("enum")
    if isinstance(choices, list) and value not in choices:
        raise InvalidInput(
            f"the field {name!r} is one of {', '.join(map(repr, choices))}, not {shown(value, 60)}"
        )
