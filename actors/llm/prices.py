"""What calls cost: a table of prices, and a pure function from usage to US dollars."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from protocol.errors import ManifestError
from protocol.explain import explained
from protocol.toml import read_toml
from protocol.usage import Usage

_STANDARD = Path(__file__).with_name("prices.toml")
_MILLION = 1_000_000


class Price(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a model costs, in US dollars per million tokens; what is not set costs as much as any input.

    ``cache_write_5m`` and ``cache_write_1h`` are for what is written to a cache for five minutes and for an
    hour. ``as_of`` is the day the price was read, as ``2026-11-21``.
    """

    input: float
    output: float
    cache_read: float | None = None
    cache_write_5m: float | None = None
    cache_write_1h: float | None = None
    as_of: str | None = None


class Prices(Struct, frozen=True):
    """A table of prices by ``scheme/model_id``; models of ``local`` schemes cost nothing."""

    models: dict[str, Price]
    local: frozenset[str] = frozenset()


class _Entry(Price, frozen=True, forbid_unknown_fields=True, kw_only=True):
    models: tuple[str, ...]


class _Table(Struct, frozen=True, forbid_unknown_fields=True):
    local: tuple[str, ...] = ()
    price: tuple[_Entry, ...] = ()


def cost(model: str, usage: Usage | None, table: Prices) -> float | None:
    """What a call of ``model`` (``scheme/model_id``) cost, in US dollars.

    None where nobody knows: the model has no price, or the server did not report both input and output. Where
    it reports nothing of a cache, all input counts as fresh.
    """
    price = table.models.get(model)
    if price is None:
        return 0.0 if model.partition("/")[0] in table.local else None
    if usage is None or usage.input_tokens is None or usage.output_tokens is None:
        return None
    read, written = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
    hour = min(usage.cache_write_1h_tokens or 0, written)
    fresh = max(0, usage.input_tokens - read - written)
    short_price = _or(price.cache_write_5m, price.input)
    return (
        fresh * price.input
        + read * _or(price.cache_read, price.input)
        + (written - hour) * short_price
        + hour * _or(price.cache_write_1h, short_price)
        + usage.output_tokens * price.output
    ) / _MILLION


def _or(price: float | None, otherwise: float) -> float:
    return otherwise if price is None else price


@cache
def standard_prices() -> Prices:
    """The table that comes with polypod."""
    return _checked(read_toml(_STANDARD, "a price table"), str(_STANDARD))


def load_prices(path: str | Path) -> Prices:
    """The standard table with a user's own prices over it: a TOML file with entries like::

        local = ["my_scheme"]

        [[price]]
        models = ["openai/my-model"]
        input = 1.5
        output = 6

    Raises ManifestError, which names the file, the key and what was expected.
    """
    standard, own = standard_prices(), _checked(read_toml(Path(path), "a price table"), str(path))
    return Prices({**standard.models, **own.models}, standard.local | own.local)


def _checked(data: Any, where: str) -> Prices:
    try:
        table = msgspec.convert(data, _Table)
    except msgspec.ValidationError as error:
        raise explained(error, data, _Table, where, what="price table") from error
    models: dict[str, Price] = {}
    for number, entry in enumerate(table.price):
        fields = {name: getattr(entry, name) for name in Price.__struct_fields__}
        for name, value in fields.items():
            if isinstance(value, float) and not 0 <= value < math.inf:
                raise ManifestError(f"{where}: price[{number}].{name}: expected 0 or more, got {value}")
        models |= dict.fromkeys(entry.models, Price(**fields))
    return Prices(models, frozenset(table.local))
