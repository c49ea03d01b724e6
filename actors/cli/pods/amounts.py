"""``--budget``: an amount as people write it, money, tokens or time; pure."""

from __future__ import annotations

import math
import re
from typing import Literal, NamedTuple

#: How many of each stand in a unit.
_TOKENS = {"": 1, "k": 1_000, "m": 1_000_000}
_SECONDS = {"s": 1, "sec": 1, "min": 60, "h": 3600}
_MONEY = re.compile(r"\$\s*(?P<number>\d+(\.\d+)?|\.\d+)|(?P<behind>\d+(\.\d+)?|\.\d+)\s*usd", re.IGNORECASE)
_OTHER = re.compile(
    r"(?P<number>\d[\d_,]*(\.\d+)?)\s*(?:(?P<time>s|sec|min|h)|(?P<tokens>k|m)?(?:\s*tok(?:ens?)?)?)",
    re.IGNORECASE,
)

EXPECTED = "write $0.50, 200k (tokens), or a time like 90s, 10min or 2h"

Kind = Literal["cost_usd", "tokens", "seconds"]


class Amount(NamedTuple):
    """How much of what, by its name in ``[budget]``."""

    kind: Kind
    value: float


def read_amount(text: str) -> Amount:
    """The amount that ``text`` names. Raises ValueError, whose words say how it is written."""
    written = text.strip()
    if money := _MONEY.fullmatch(written):
        return _positive(Amount("cost_usd", float(money["number"] or money["behind"])), text)
    found = _OTHER.fullmatch(written)
    if found is None or re.fullmatch(r"[\d_,.]+\s*m", written, re.IGNORECASE):
        # An m alone may mean minutes, or millions.
        raise ValueError(f"{text!r} is not an amount: {EXPECTED}")
    number = float(re.sub("[_,]", "", found["number"]))
    if found["time"]:
        return _positive(Amount("seconds", number * _SECONDS[found["time"].lower()]), text)
    number *= _TOKENS[(found["tokens"] or "").lower()]
    return _positive(Amount("tokens", int(number) if math.isfinite(number) else number), text)


def _positive(amount: Amount, text: str) -> Amount:
    if amount.value <= 0:
        raise ValueError(f"{text!r} must be more than 0: {EXPECTED}")
    if not math.isfinite(amount.value):
        raise ValueError(f"{text!r:.40} is too much: {EXPECTED}")
    return amount
