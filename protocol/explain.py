"""Explain: msgspec's refusal of data that a person wrote, as file, key and what was expected."""

from __future__ import annotations

import re
import types
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Struct

from protocol.closest import closest
from protocol.errors import ManifestError
from protocol.foreign import shown

# Patterns are compiled when first used, which only an error has them be.
_AT = r"(?s)(?P<what>.*?)(?: - at `\$\.?(?P<key>.*)`)?"
_UNKNOWN = r"Object contains unknown field `(?P<field>.*)`"
_MISSING = r"Object missing required field `(?P<field>.*)`"
_STEP = r"[^.\[\]]+"
#: How msgspec says that the value of some key of a table does not fit.
_ANY_KEY = "[...]"
#: Keys whose values are not shown.
_SECRET_KEYS = frozenset({"api_key"})
#: Longest piece of a wrong value that a message shows.
_SHOWN = 60

#: What other runtimes, and their users, call a key of ours.
_OURS = {
    "instructions": "system_prompt",
    "prompt": "system_prompt",
    "system": "system_prompt",
    "max_turns": "max_steps",
    "max_iterations": "max_steps",
    "recursion_limit": "max_steps",
    "request_limit": "max_steps",
    "max_completion_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "api_base": "base_url",
    "url": "base_url",
    "api_key": "api_key_env",
    "cost": "cost_usd",
    "dollars": "cost_usd",
    "usd": "cost_usd",
    "effort": "reasoning_effort",
    "budget_tokens": "thinking_budget",
    "thinking": "thinking_budget",
    "cwd": "pwd",
    "mcp_servers": "mcp",
    "mcpservers": "mcp",
}
#: What to do about a value that stands in the place of a section.
_IN_PROGRAMS = {
    "tools": "pass functions to spawn(tools=[…]); for built-in tools, write tools={'builtin': ['files']}",
    "scope": "write Scope.readable('.') or Scope.writable('.'), or [[scope.allow]] with a target",
    "budget": "write tokens=…, cost_usd=… or seconds=…",
}

_WORDS: dict[Any, tuple[str, str]] = {
    str: ("a string", "strings"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "true or false"),
}


def explained(
    error: msgspec.ValidationError,
    data: Any,
    root: type[Struct],
    where: str,
    hidden: frozenset[str] = frozenset(),
    *,
    what: str = "manifest",
) -> ManifestError:
    """Why ``data`` is no ``root`` (called ``what``), in words of who wrote it; ``hidden`` keys are not
    advertised.
    """
    found = re.fullmatch(_AT, str(error))
    assert found is not None
    why, key = found["what"], found["key"] or ""
    if unknown := re.fullmatch(_UNKNOWN, why):
        return _unknown_key(where, key, unknown["field"], root, hidden, what)
    if missing := re.fullmatch(_MISSING, why):
        return ManifestError(f"{where}: {key}: the key {missing['field']!r} is missing")
    if key.endswith(_ANY_KEY):  # msgspec does not say which key of a table it was
        key, kind, value = _within(root, data, key.removesuffix(_ANY_KEY))
    else:
        kind, value = _type_at(root, key), _value_at(data, key)
    got = "another kind" if key.rpartition(".")[2] in _SECRET_KEYS else _shown(value)
    return ManifestError(
        f"{where}: {key or what}: expected {in_words(kind)}, got {got}", hint=_IN_PROGRAMS.get(key)
    )


def _within(root: type[Struct], data: Any, table: str) -> tuple[str, Any, Any]:
    """The first key of a ``table`` with keys of the user's own whose value does not fit: the key, the type
    that is wanted, and the value.
    """
    wanted = get_args(_type_at(root, table))[1]
    for name, value in _value_at(data, table).items():
        try:
            msgspec.convert(value, wanted)
        except msgspec.ValidationError:
            return f"{table}.{name}", wanted, value
    raise AssertionError(f"all of {table} fits")


def unknown_key(where: str, key: str, known: list[str], of: str, home: str = "") -> ManifestError:
    """The refusal of a key that is none of ``known``, which are the keys ``of`` something; ``home`` is the
    section that has such a key.
    """
    name = key.rpartition(".")[2]
    ours = _OURS.get(name.lower(), "")
    near = ours if ours in known else closest(name, known)
    guess = f"it is a key of {home}; " if home else f"did you mean {near!r}? " if near else ""
    return ManifestError(f"{where}: unknown key {key!r}", hint=f"{guess}keys of {of}: {', '.join(known)}")


def in_words(kind: Any) -> str:
    """A type as a person would say it: ``a list of strings``, ``one of 'read', 'write'``."""
    kind = _present(kind)
    if _is_union(kind):
        return " or ".join(in_words(each) for each in get_args(kind))
    if get_origin(kind) is Literal:
        return f"one of {', '.join(repr(value) for value in get_args(kind))}"
    if get_origin(kind) is tuple:
        of = _present(get_args(kind)[0])
        return f"a list of {_WORDS[of][1] if of in _WORDS else 'tables'}"
    if get_origin(kind) is dict:
        return "a table"
    return _WORDS[kind][0] if kind in _WORDS else f"a table with keys {', '.join(kind.__struct_fields__)}"


def _unknown_key(
    where: str, key: str, field: str, root: type[Struct], hidden: frozenset[str], what: str
) -> ManifestError:
    known = [name for name in _table_of(_type_at(root, key)).__struct_fields__ if name not in hidden]
    section = re.sub(r"\[\d+\]", "", key)
    of = f"a {what}" if not section else f"[[{section}]]" if key.endswith("]") else f"[{section}]"
    return unknown_key(where, f"{key}.{field}" if key else field, known, of, _home_of(field, root))


def _home_of(field: str, root: type[Struct]) -> str:
    """The section of ``root`` that has a key of that name; empty where none has."""
    sections = {each.name: _present(each.type) for each in msgspec.structs.fields(root)}
    having = (name for name, kind in sections.items() if field in getattr(kind, "__struct_fields__", ()))
    section = next(having, "")
    return section and f"[{section}]"


def _present(kind: Any) -> Any:
    """The type of a value that is there: ``X`` of ``X | None``."""
    if not _is_union(kind):
        return kind
    present = [each for each in get_args(kind) if each is not type(None)]
    return present[0] if len(present) == 1 else Union[tuple(present)]  # noqa: UP007 - made of a list


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in {Union, types.UnionType}


def _table_of(kind: Any) -> Any:
    """The type of a value that has keys or places: of ``str | X`` the X."""
    return next(each for each in get_args(kind) if each not in _WORDS) if _is_union(kind) else kind


def _type_at(struct: Any, key: str) -> Any:
    """The type that ``struct`` wants at a key like ``scope.allow[0].target``."""
    kind = struct
    for step in re.findall(_STEP, key):
        kind = _table_of(_present(kind))
        if get_origin(kind) in {tuple, dict}:
            kind = get_args(kind)[0 if get_origin(kind) is tuple else 1]
        else:
            kind = {field.name: field.type for field in msgspec.structs.fields(kind)}[step]
    return _present(kind)


def _value_at(data: Any, key: str) -> Any:
    for step in re.findall(_STEP, key):
        data = data[int(step)] if isinstance(data, list | tuple) else data[step]
    return data


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    return "nothing" if value is None else shown(value, _SHOWN)
