"""Finds approval rules that can match no call, such as one with a misspelt name; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from protocol.approval import ApprovalRule, in_words
from protocol.closest import closest
from protocol.text import with_article
from protocol.tools import ToolSpec

#: Tools that are named to a person whose rule names none of them.
_SHOWN = 6
#: The type of JSON that a value of a rule has.
_TYPES: dict[type, str] = {
    bool: "boolean",
    int: "number",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}
#: What types of a schema are called here.
_SCHEMA_TYPES = {"integer": "number"}


def mistakes(
    rules: Iterable[ApprovalRule], tools: Iterable[ToolSpec], *, more_may_come: bool = False
) -> tuple[str, ...]:
    """Warnings about those ``rules`` of a pod with these ``tools`` that can match no call.

    With ``more_may_come`` from tool sources, a name that no tool has is a mistake only if it closely
    resembles one. The name of a built-in tool never is.
    """
    specs = {each.name: each for each in tools}
    return tuple(
        f"{in_words(rule)} matches no call: {why}"
        for rule in rules
        for why in _why(rule, specs, more_may_come=more_may_come)
    )


def _why(rule: ApprovalRule, specs: dict[str, ToolSpec], *, more_may_come: bool) -> Iterator[str]:
    meant = [spec for name, spec in specs.items() if rule.names(name)]
    if not meant:
        near = _near(rule.tool, specs)
        if near or not (more_may_come or _is_built_in(rule)):
            has = ", ".join([*list(specs)[:_SHOWN], *(["…"] if len(specs) > _SHOWN else [])])
            guess = near or (f"; it has {has}" if has else "; it has no tools")
            yield f"the pod has no tool {rule.tool!r}{guess}"
        return
    for key, value in rule.match.items():
        properties = [_property(spec, key) for spec in meant]
        if not any(each is not None for each in properties):
            keys = [name for spec in meant for name in spec.input_schema.get("properties", {})]
            yield f"{meant[0].name!r} takes no argument {key!r}{_near(key, keys)}"
        elif not any(each is not None and _may_be(each, value) for each in properties):
            yield f"the argument {key!r} of {meant[0].name!r} cannot be {with_article(_type(value))}"


def _property(spec: ToolSpec, key: str) -> Any | None:
    """The schema of an argument, empty if nothing is known about it; None if the argument cannot be given."""
    schema = spec.input_schema
    found = schema.get("properties", {}).get(key)
    if found is None and schema.get("additionalProperties") is False:
        return None
    return found or {}


def _may_be(schema: Any, value: Any) -> bool:
    """Whether a value of that type may be given; where a schema is unclear, anything may."""
    said = schema.get("type") if isinstance(schema, dict) else None
    if not isinstance(said, str) or value is None:
        return True
    return _SCHEMA_TYPES.get(said, said) == _type(value)


def _type(value: Any) -> str:
    return _TYPES.get(type(value), "value")


def _near(name: str, known: Iterable[str]) -> str:
    near = closest(name, known)
    return f"; did you mean {near!r}?" if near else ""


def _is_built_in(rule: ApprovalRule) -> bool:
    from actors.pod.history.task_tools import TASK_TOOLS  # noqa: PLC0415 - paid for by a rule that names no tool
    from actors.tools.builtin import BUILTIN_GROUPS  # noqa: PLC0415 - the same

    groups = (*BUILTIN_GROUPS.values(), TASK_TOOLS)
    return any(rule.names(each.name) for group in groups for each in group)
