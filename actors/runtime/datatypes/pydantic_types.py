"""Types of pydantic: their own schema, validation and dump. Nothing here imports pydantic.

A type can only be pydantic's where the user's program has imported it, so it is looked up among the
loaded modules; a program without it pays one look into a dict.
"""

from __future__ import annotations

import sys
import typing
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from protocol.foreign import named_words
from protocol.text import encodable_json

#: By these pydantic knows a class: models and pydantic's dataclasses; types made for it.
_MARKS = ("__pydantic_validator__", "__get_pydantic_core_schema__")
_SHOWN_ERRORS = 5
_SHOWN_VALUE = 60


def is_loaded() -> bool:
    """Whether the program has imported pydantic (2 or later)."""
    return hasattr(sys.modules.get("pydantic"), "TypeAdapter")


def owns(kind: Any) -> bool:
    """Whether ``kind``, or a type within it, is pydantic's or is constrained in its words."""
    return is_loaded() and any(_is_own(each) for each in _within(kind, []))


def is_model(value: Any) -> bool:
    """Whether pydantic has made the class of ``value``."""
    return hasattr(type(value), "__pydantic_serializer__")


def dump(value: Any) -> Any:
    """``value``, of which ``is_model`` is true, as JSON data, in pydantic's own way."""
    return type(value).__pydantic_serializer__.to_python(value, mode="json")


def is_field(default: Any) -> bool:
    """Whether a parameter's default is a ``Field(…)``, which says more of it than a default."""
    return is_loaded() and isinstance(default, sys.modules["pydantic"].fields.FieldInfo)


class PydanticType:
    """``kind`` as pydantic sees it. Raises TypeError if it cannot be one of its types."""

    __slots__ = ("_adapter", "schema")

    def __init__(self, kind: Any) -> None:
        module: Any = sys.modules["pydantic"]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a default that it cannot write: it is left out
                self._adapter = module.TypeAdapter(kind)
                self.schema: dict[str, Any] = self._adapter.json_schema()
        except Exception as error:
            raise TypeError(f"pydantic cannot express {kind!r}: {error}") from error

    def convert(self, data: Any) -> Any:
        """JSON data as an instance. Raises ValueError with words for who wrote the data."""
        try:
            encoded = msgspec.json.encode(data)
        except UnicodeEncodeError:
            encoded = msgspec.json.encode(encodable_json(data))
        try:
            return self._adapter.validate_json(encoded)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # what a validator of the user's own raises included
            raise ValueError(_words(error)) from error


def _words(error: BaseException) -> str:
    errors: Callable[..., list[dict[str, Any]]] | None = getattr(error, "errors", None)
    if not isinstance(error, ValueError) or errors is None:
        return named_words(error)
    found = errors(include_url=False, include_context=False)
    more = f"; and {len(found) - _SHOWN_ERRORS} more" if len(found) > _SHOWN_ERRORS else ""
    return "; ".join(_one(each) for each in found[:_SHOWN_ERRORS]) + more


def _one(error: dict[str, Any]) -> str:
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error["loc"])
    what = error["msg"]
    got = "" if error["type"] == "missing" else f", got {_shown(error['input'])}"
    return f"{where.lstrip('.')}: {what}{got}" if where else f"{what}{got}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_VALUE else f"{text[:_SHOWN_VALUE]}…"


def _is_own(part: Any) -> bool:
    if isinstance(part, type):
        return any(hasattr(part, mark) for mark in _MARKS) or part.__module__.startswith("pydantic.")
    return type(part).__module__.partition(".")[0] in {"pydantic", "annotated_types"}


def _within(kind: Any, seen: list[Any]) -> Iterator[Any]:
    """``kind``, what it is annotated with, and all types in it."""
    if any(kind is each for each in seen):
        return
    seen.append(kind)
    yield kind
    inner: list[Any] = [*getattr(kind, "__metadata__", ()), *typing.get_args(kind)]
    if typing.get_origin(kind) is typing.Annotated:
        inner.append(kind.__origin__)
    inner += [getattr(kind, name) for name in ("__supertype__", "__value__") if hasattr(kind, name)]
    if isinstance(kind, type) and _has_fields(kind):
        try:
            inner += typing.get_type_hints(kind, include_extras=True).values()
        except Exception:  # noqa: BLE001 - names that cannot be resolved are reported by who reads the type
            return
    for each in inner:
        yield from _within(each, seen)


def _has_fields(kind: type) -> bool:
    return hasattr(kind, "__dataclass_fields__") or typing.is_typeddict(kind) or hasattr(kind, "_fields")
