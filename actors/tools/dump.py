"""Dumps whatever a tool returned as JSON text: by then the tool has run, so nothing here fails, also where
the value's own code raises SystemExit or KeyboardInterrupt.

msgspec writes what it knows. The rest is made plain first: models are dumped by their own library,
arrays and tables by their own method, iterators are drained up to a bound, and what has no form as
data is reported in words.
"""

from __future__ import annotations

import enum
import math
import types
from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from typing import Any

import msgspec

from actors.runtime.datatypes import pydantic_types
from protocol.foreign import named_words
from protocol.recordable import MAX_BITS
from protocol.text import encodable

#: How many members of an iterator, or of a collection that is not a list, are taken at most.
MOST_MEMBERS = 100_000
#: How deep lists and tables are shown within each other.
MOST_LEVELS = 100

_encode = msgspec.json.encode
#: Methods by which objects of other libraries make themselves plain: validation libraries, arrays and
#: their scalars, tables.
_OWN_METHODS = ("model_dump", "to_dict", "tolist", "_asdict")
#: What ``str`` shows of these is an address in memory.
_CODE = (types.FunctionType, types.MethodType, types.BuiltinFunctionType)


def dump(value: Any) -> str:
    """``value`` as JSON text, or as words where it cannot be shown as data."""
    if not pydantic_types.is_loaded():  # a dataclass may be pydantic's, with a dump of its own
        try:
            return _encode(value).decode()
        except BaseException:  # noqa: BLE001, S110 - whatever it was, what follows does not mind
            pass
    shown = plain(value)
    if isinstance(shown, str) and _is_mute(value):
        return shown  # words of ours rather than a text of the tool's
    return _encode(shown).decode()


def plain(value: Any) -> Any:
    """``value`` as data that JSON has, each text of it encodable."""
    return _Dump().plain(value)


def collect(members: Iterable[Any]) -> list[Any]:
    """All members of an iterator or the first ``MOST_MEMBERS``, then a note; an error on the way is
    the caller's.
    """
    taken = list(islice(members, MOST_MEMBERS + 1))
    if len(taken) > MOST_MEMBERS:
        taken[MOST_MEMBERS:] = [f"[only the first {MOST_MEMBERS:,} members are shown]"]
    return taken


class _Dump:
    """One dump: it knows what it is within, so that nothing is entered twice."""

    def __init__(self) -> None:
        self._around: set[int] = set()

    def plain(self, value: Any) -> Any:
        """``value`` as data that JSON has."""
        if isinstance(value, enum.Enum):
            return self.plain(value.value)
        if value is None or isinstance(value, bool | int | float | str):
            return _number_or_text(value)
        if id(value) in self._around:
            return "[the same object again, within itself]"
        if len(self._around) >= MOST_LEVELS:
            return f"[deeper than {MOST_LEVELS} levels]"
        self._around.add(id(value))
        try:
            return self._entered(value)
        except BaseException as error:  # noqa: BLE001 - its own methods may raise anything
            what = type(value).__qualname__
            return f"[{what}: the tool ran, but this cannot be shown: {named_words(error)}]"
        finally:
            self._around.discard(id(value))

    def _entered(self, value: Any) -> Any:
        shown: Any
        if isinstance(value, type | types.ModuleType):
            shown = repr(value)
        elif isinstance(value, BaseException):
            shown = named_words(value)
        elif isinstance(value, Mapping):
            shown = self._table(value.items())
        elif isinstance(value, list | tuple | set | frozenset):
            shown = [self.plain(each) for each in value]
        elif pydantic_types.is_model(value):
            shown = self.plain(pydantic_types.dump(value))
        elif (fields := _fields(value)) is not None:
            shown = self._table(fields)
        else:
            shown = self._foreign(value)
        return shown

    def _foreign(self, value: Any) -> Any:
        found, plain = self._by_own_method(value)
        if found:
            return plain
        if isinstance(value, bytes | bytearray | memoryview):
            return msgspec.to_builtins(bytes(value))
        if hasattr(value, "__next__") or isinstance(value, Collection):
            return [self.plain(each) for each in collect(value)]
        try:
            return msgspec.to_builtins(value)  # dates, decimals and their like
        except TypeError:
            return _words(value)

    def _by_own_method(self, value: Any) -> tuple[bool, Any]:
        for name in _OWN_METHODS:
            method = getattr(value, name, None)
            if callable(method):
                try:
                    made = method(mode="json") if name == "model_dump" else method()
                except BaseException:  # noqa: BLE001, S112 - another way may work
                    continue
                if made is not value:
                    return True, self.plain(made)
        return False, None

    def _table(self, pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
        table: dict[str, Any] = {}
        for key, value in pairs:
            name = unique = self._key(key)
            n = 1
            while unique in table:  # keys that differ, but not as texts
                n += 1
                unique = f"{name} ({n})"
            table[unique] = self.plain(value)
        return table

    def _key(self, key: Any) -> str:
        if isinstance(key, bool):
            return str(key).lower()
        if key is None:
            return "null"
        made = self.plain(key)
        return made if isinstance(made, str) else encodable(str(key)) if isinstance(key, tuple) else str(made)


def _fields(value: Any) -> list[tuple[str, Any]] | None:
    """The fields of a Struct, a dataclass or an attrs class, by name; None for other objects."""
    if isinstance(value, msgspec.Struct):
        config = value.__struct_config__
        tag = [] if config.tag_field is None else [(config.tag_field, config.tag)]
        names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        own = [(shown, getattr(value, name)) for shown, name in names]
        return [*tag, *((name, each) for name, each in own if each is not msgspec.UNSET)]
    if hasattr(type(value), "__dataclass_fields__"):
        import dataclasses  # noqa: PLC0415 - loaded by who made the class

        named = [field.name for field in dataclasses.fields(value)]
    elif hasattr(type(value), "__attrs_attrs__"):
        named = [field.name for field in type(value).__attrs_attrs__]
    else:
        return None
    return [(name, getattr(value, name)) for name in named if hasattr(value, name)]


def _number_or_text(value: Any) -> Any:
    if isinstance(value, str):
        return encodable(str.__str__(value))
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool):
        return value
    return int(value) if value.bit_length() <= MAX_BITS else hex(value)


def _is_mute(value: Any) -> bool:
    """Whether an object says nothing of itself but where it lies in memory."""
    kind: Any = type(value)
    return kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__


def _words(value: Any) -> str:
    if isinstance(value, _CODE):
        return f"<{type(value).__name__} {value.__qualname__}>"
    if _is_mute(value):
        what = type(value).__qualname__
        return f"[{what}: the tool ran, but what it returned cannot be shown as data]"
    return encodable(str(value))
