"""Hypothesis strategies for protocol types, read from their annotations as msgspec reads them."""

import types
from enum import Enum
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
from hypothesis import strategies as st

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(texts, values, max_size=3)


#: JSON as it survives a round trip: no NaN, no surrogates, integers that every reader can hold.
numbers = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | numbers | texts
json_values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | objects(inner), max_leaves=6)


_PLAIN = {
    str: texts,
    int: st.integers(-(2**53), 2**53),
    float: numbers,
    bool: st.booleans(),
    Any: json_values,
    type(None): st.none(),
    msgspec.Raw: objects(json_values).map(lambda value: msgspec.Raw(msgspec.json.encode(value))),
}


@cache
def of(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a type that stands in a protocol type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in _PLAIN:
        return _PLAIN[kind]
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in {Union, types.UnionType}:
        return st.one_of([of(each) for each in arguments])
    if origin is tuple:
        return st.lists(of(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return objects(of(arguments[1]))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(kind)
    return structs(kind)


@cache
def structs(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Any instance of a struct; a field with a default is left out now and then."""
    required, optional = {}, {}
    for field in msgspec.structs.fields(kind):
        # deferred: a scope may stand within a scope
        chosen = st.deferred(lambda wanted=field.type: of(wanted))
        (required if field.required else optional)[field.name] = chosen
    return st.fixed_dictionaries(required, optional=optional).map(lambda fields: kind(**fields))


def plain(value: Any) -> Any:
    """A value as JSON says it, to compare what ``msgspec.Raw`` hides."""
    return msgspec.json.decode(msgspec.json.encode(value))
