"""The JSON Schema of a type that msgspec knows, such that what it allows is what ``convert`` takes.

msgspec writes schemas too. Theirs say nothing of the keys of ``dict[int, …]``, ask for unique members
that decoding does not ask for, hold defaults that are not JSON (infinity), and refuse a type with a
default of a type of its own. So the types are read by ``msgspec.inspect`` and written down here.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count
from typing import Any

import msgspec
from msgspec import inspect as mi

from protocol.text import encodable_json

Schema = dict[str, Any]
#: The schema of a type that msgspec does not know; raises TypeError.
Custom = Callable[[type], Schema]

_REF = "#/$defs/"
_TEXTS: dict[type[mi.Type], str | None] = {
    mi.DateTimeType: "date-time",
    mi.DateType: "date",
    mi.TimeType: "time",
    mi.TimeDeltaType: "duration",
    mi.UUIDType: "uuid",
}
_SIMPLE: dict[type[mi.Type], Schema] = {
    mi.AnyType: {},
    mi.RawType: {},
    mi.NoneType: {"type": "null"},
    mi.BoolType: {"type": "boolean"},
    mi.IntType: {"type": "integer"},
    mi.FloatType: {"type": "number"},
    mi.DecimalType: {"anyOf": [{"type": "string", "format": "decimal"}, {"type": "number"}]},
}
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
_NUMBER = {**_BOUNDS, "multiple_of": "multipleOf"}
_TEXT = {"max_length": "maxLength", "min_length": "minLength", "pattern": "pattern"}
_LIST = {"max_length": "maxItems", "min_length": "minItems"}
_TABLE = {"max_length": "maxProperties", "min_length": "minProperties"}
#: What the keys of a JSON object have to look like to be read as keys of such a type.
_KEYS: dict[type[mi.Type], str] = {
    mi.IntType: r"^-?(0|[1-9]\d*)$",
    mi.FloatType: r"^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$",
}
_WITH_FIELDS = (mi.StructType, mi.TypedDictType, mi.DataclassType, mi.NamedTupleType)
_LISTS = (mi.ListType, mi.SetType, mi.FrozenSetType, mi.VarTupleType, mi.CollectionType)
_BYTES = (mi.BytesType, mi.ByteArrayType, mi.MemoryViewType)
_DICTS = tuple(
    kind for name in ("DictType", "FrozenDictType") if (kind := getattr(mi, name, None)) is not None
)


def schema_of(kind: Any, custom: Custom) -> Schema:
    """The JSON Schema of ``kind``, whole in itself (``$defs``). Raises TypeError."""
    info = mi.type_info(kind)
    writer = _Writer(info, custom)
    schema = writer.write(info, named=False)
    own = writer.names.get(getattr(info, "cls", None), "")
    definitions = writer.definitions(without=own)
    if own and f"{_REF}{own}" in _references([schema, definitions]):
        definitions = writer.definitions()
    whole: Schema = clean({**schema, "$defs": definitions} if definitions else schema)
    return whole


def clean(schema: Any) -> Any:
    """``schema`` without numbers that JSON does not know, and with texts that UTF-8 can hold."""
    if isinstance(schema, dict):
        return {
            encodable_json(key): clean(value)
            for key, value in schema.items()
            if not (isinstance(value, float) and not math.isfinite(value))
        }
    if isinstance(schema, list | tuple):
        return [clean(value) for value in schema]
    return encodable_json(schema)


def merge(schema: Schema, definitions: Schema) -> Schema:
    """``schema`` without its ``$defs``, which are added to ``definitions``; a name that already means
    something else there is renamed.
    """
    own = schema.pop("$defs", {})
    renamed = {}
    for name, shape in own.items():
        new, n = name, 1
        while definitions.get(new, shape) != shape:
            n += 1
            new = f"{name}_{n}"
        renamed[f"{_REF}{name}"] = f"{_REF}{new}"
    for name, shape in own.items():
        definitions[renamed[f"{_REF}{name}"].removeprefix(_REF)] = _relinked(shape, renamed)
    merged: Schema = _relinked(schema, renamed)
    return merged


def _relinked(value: Any, renamed: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            key: renamed.get(each, each) if key == "$ref" else _relinked(each, renamed)
            for key, each in value.items()
        }
    return [_relinked(each, renamed) for each in value] if isinstance(value, list) else value


def _references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(_references(each) for each in value.values()))
    return set().union(*(_references(each) for each in value)) if isinstance(value, list) else set()


class _Writer:
    """Writes the schemas of one type and of all that it names."""

    def __init__(self, root: mi.Type, custom: Custom) -> None:
        self._custom = custom
        self._named: dict[Any, mi.Type] = {}
        for info in _within(root, set()):
            if isinstance(info, (*_WITH_FIELDS, mi.EnumType)):
                self._named.setdefault(info.cls, info)
        self.names = _names(self._named)

    def definitions(self, *, without: str = "") -> Schema:
        return {
            self.names[cls]: self.write(info, named=False)
            for cls, info in self._named.items()
            if self.names[cls] != without
        }

    def write(self, info: mi.Type, *, named: bool = True) -> Schema:
        if isinstance(info, mi.Metadata):
            return {**self.write(info.type, named=named), **(info.extra_json_schema or {})}
        if named and (name := self.names.get(getattr(info, "cls", None))):
            return {"$ref": _REF + name}
        if isinstance(info, mi.UnionType):
            return {"anyOf": [self.write(each) for each in _none_last(info.types)]}
        if isinstance(info, mi.CustomType):
            return self._custom(info.cls)
        return self._class(info) or self._collection(info) or _plain(info)

    def _class(self, info: mi.Type) -> Schema | None:
        if isinstance(info, mi.EnumType):
            return {**_headed(info), "enum": sorted(each.value for each in info.cls)}
        if isinstance(info, mi.NamedTupleType) or (isinstance(info, mi.StructType) and info.array_like):
            return self._row(info)
        if isinstance(info, _WITH_FIELDS):
            return self._record(info)
        return None

    def _collection(self, info: mi.Type) -> Schema | None:
        if isinstance(info, _DICTS):
            return {"type": "object", **self._members(info), **_limits(info, _TABLE)}
        if isinstance(info, mi.TupleType):
            items = [self.write(each) for each in info.item_types]
            fixed: Schema = {"type": "array", "minItems": len(items), "maxItems": len(items)}
            return {**fixed, "prefixItems": items, "items": False} if items else fixed
        if isinstance(info, _LISTS):
            item = {} if isinstance(info.item_type, mi.AnyType) else {"items": self.write(info.item_type)}
            return {"type": "array", **item, **_limits(info, _LIST)}
        return None

    def _members(self, info: Any) -> Schema:
        members: Schema = {}
        keys = _bare(info.key_type)
        if isinstance(keys, mi.BoolType | mi.NoneType):
            raise TypeError("keys of JSON objects must be strings")
        if type(keys) in _KEYS:
            members["propertyNames"] = {"pattern": _KEYS[type(keys)]}
        elif not isinstance(keys, mi.AnyType):
            # property names are texts anyhow
            wanted = self.write(info.key_type)
            if "enum" in wanted:
                wanted["enum"] = [str(each) for each in wanted["enum"]]
            wanted.pop("type", None)
            if wanted:
                members["propertyNames"] = wanted
        if not isinstance(info.value_type, mi.AnyType):
            members["additionalProperties"] = self.write(info.value_type)
        return members

    def _record(self, info: Any) -> Schema:
        properties = {field.encode_name: self._field(field) for field in info.fields}
        required = [field.encode_name for field in info.fields if field.required]
        if getattr(info, "tag_field", None) is not None:
            properties = {info.tag_field: {"enum": [info.tag]}, **properties}
            required.insert(0, info.tag_field)
        schema = {**_headed(info), "type": "object", "properties": properties, "required": required}
        if getattr(info, "forbid_unknown_fields", False):
            schema["additionalProperties"] = False
        return schema

    def _row(self, info: Any) -> Schema:
        fields = [self._field(field) for field in info.fields]
        if getattr(info, "tag_field", None) is not None:
            fields.insert(0, {"enum": [info.tag]})
        optional = sum(not field.required for field in info.fields)
        schema = {**_headed(info), "type": "array", "prefixItems": fields, "minItems": len(fields) - optional}
        if isinstance(info, mi.NamedTupleType) or info.forbid_unknown_fields:
            schema["maxItems"] = len(fields)
        return schema

    def _field(self, field: mi.Field) -> Schema:
        schema = self.write(field.type)
        default = field.default
        if default is msgspec.NODEFAULT and field.default_factory in {list, dict, set}:
            default = field.default_factory()
        if default is not msgspec.NODEFAULT:
            try:
                schema["default"] = msgspec.to_builtins(default, str_keys=True)
            except (TypeError, ValueError):
                return schema  # a default that JSON cannot express is left for the type to fill in
        return schema


def _plain(info: mi.Type) -> Schema:
    kind = type(info)
    schema: Schema
    if kind in _SIMPLE:
        schema = {**_SIMPLE[kind], **_limits(info, _NUMBER if "type" in _SIMPLE[kind] else {})}
    elif isinstance(info, mi.StrType):
        schema = {"type": "string", **_limits(info, _TEXT)}
    elif isinstance(info, _BYTES):
        sizes = {word: 4 * ((size + 2) // 3) for word, size in _limits(info, _TEXT).items()}
        schema = {"type": "string", "contentEncoding": "base64", **sizes}
    elif kind in _TEXTS:
        zoned = getattr(info, "tz", True) is True  # the formats of JSON Schema are of times with a zone
        schema = {"type": "string", **({"format": _TEXTS[kind]} if zoned else {})}
    elif isinstance(info, mi.LiteralType):
        schema = {"enum": sorted(info.values, key=lambda value: (value is None, str(type(value)), value))}
    else:
        raise TypeError(f"JSON cannot express {info!r}")
    return schema


def _headed(info: Any) -> Schema:
    """The title of a class, and its docstring where it is its own."""
    cls = getattr(info.cls, "__origin__", info.cls)
    words = cls.__dict__.get("__doc__") or ""
    made = words.startswith(f"{cls.__name__}(") and words.endswith(")")
    text = "" if made or words == "An enumeration." else inspect.cleandoc(words)
    return {"title": _class_name(info.cls), **({"description": text} if text else {})}


def _class_name(cls: Any) -> str:
    origin = getattr(cls, "__origin__", None)
    if origin is None:
        return str(cls.__name__)
    return f"{origin.__name__}[{', '.join(getattr(each, '__name__', repr(each)) for each in cls.__args__)}]"


def _names(classes: Iterable[Any]) -> dict[Any, str]:
    """A name for each class, with its module where two have the same."""
    short = {cls: _safe(_class_name(cls)) for cls in classes}
    found: dict[Any, str] = {}
    for cls, name in short.items():
        alone = list(short.values()).count(name) == 1
        base = name if alone else _safe(f"{cls.__module__}.{cls.__qualname__}")
        numbered = (f"{base}_{n}" for n in count(2))
        found[cls] = next(each for each in chain((base,), numbered) if each not in found.values())
    return found


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)


def _limits(info: Any, words: dict[str, str]) -> Schema:
    found = {word: getattr(info, name, None) for name, word in words.items()}
    return {word: limit for word, limit in found.items() if limit is not None}


def _none_last(types: Iterable[mi.Type]) -> list[mi.Type]:
    return sorted(types, key=lambda info: isinstance(_bare(info), mi.NoneType))


def _bare(info: mi.Type) -> mi.Type:
    while isinstance(info, mi.Metadata):
        info = info.type
    return info


def _within(info: mi.Type, seen: set[int]) -> Iterator[mi.Type]:
    """``info`` and all types in it, each once."""
    if id(info) in seen:
        return
    seen.add(id(info))
    yield info
    inner: list[Any] = [getattr(info, name, None) for name in ("type", "item_type", "key_type", "value_type")]
    inner += getattr(info, "item_types", ())
    inner += getattr(info, "types", ())
    inner += [field.type for field in getattr(info, "fields", ())]
    for each in inner:
        if isinstance(each, mi.Type):
            yield from _within(each, seen)
