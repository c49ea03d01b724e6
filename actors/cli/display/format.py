"""Sizes, times, counts and shortened texts, formatted for people; pure."""

from __future__ import annotations

import re
import time
from typing import Any

from protocol.usage import Usage

#: What a terminal would obey instead of show: control characters but tab and newline.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
#: What cannot be seen, though Python calls it printable: fillers, blanks that are not spaces, selectors of
#: variants (Unicode's Default_Ignorable_Code_Point), and signs that are drawn as nothing.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U00016fe4\U0001d159\U000e0000-\U000e0fff]"
)
#: What stands for our signs where the terminal's encoding has none of them.
_ASCII = str.maketrans(
    {
        "✓": "+",
        "✗": "x",
        "→": "->",
        "…": "...",
        "·": "-",
        "─": "-",
        "▸": ">",
        "●": "*",
        "■": "#",
        "○": "o",
        "“": '"',
        "”": '"',
        "↳": ">",
    }
)
_UNITS = ("B", "kB", "MB", "GB")


def clean(text: str) -> str:
    """``text`` as a terminal may safely show it: no escape sequence of a model or a file gets through."""
    return _CONTROLS.sub(lambda found: "" if found[0] == "\r" else "\N{REPLACEMENT CHARACTER}", text)


def visible(text: str) -> str:
    """``text`` in which all that a terminal obeys, or that cannot be seen, is written as an escape."""
    if text.isascii() and text.isprintable():
        return text
    return re.sub(r"[^ -~]", _seen, text)


def _seen(found: re.Match[str]) -> str:
    character = found[0]
    if character.isprintable() and not _UNSEEN.match(character):
        return character
    return character.encode("unicode_escape").decode()


def clock(at: float, form: str = "%H:%M:%S") -> str:
    """A time (seconds since the epoch) as clocks here show it; of one that none shows, its number."""
    try:
        return time.strftime(form, time.localtime(at))
    except (OverflowError, ValueError, OSError):
        return f"{at:g}"


def plain(text: str) -> str:
    """``text`` with our own signs in ASCII."""
    return text.translate(_ASCII)


def cut(text: str, width: int) -> str:
    """``text`` on one line of at most ``width`` characters."""
    most = 4 * width + 4
    line = " ".join(clean(text[:most]).split())
    return line if len(line) <= width and len(text) <= most else line[: max(width - 1, 0)] + "…"


def size(count: int) -> str:
    """A number of bytes: ``312 B``, ``1.2 kB``."""
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{count} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def seconds(duration: float) -> str:
    """A duration in seconds: ``40 ms``, ``2.5 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if duration < 0.9995:
        return f"{duration * 1000:.0f} ms"
    if duration < 59.95:
        return f"{duration:.1f} s"
    minutes, rest = divmod(round(duration), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def brief(duration: float) -> str:
    """A duration in seconds with three digits, however short: ``42.1 us``, ``3.20 ms``, ``1.75 s``."""
    for size, unit in ((1.0, "s"), (1e-3, "ms")):
        if duration >= size * 0.9995:
            return f"{_three_digits(duration / size)} {unit}"
    return f"{_three_digits(duration * 1e6)} us"


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def ago(then: float, now: float) -> str:
    """How long before ``now`` something was: ``just now``, ``5 min ago``, ``3 d ago``."""
    passed = max(now - then, 0)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if passed >= length:
            return f"{int(passed // length)} {unit} ago"
    return "just now" if passed < 5 else f"{int(passed)} s ago"


def count(number: int, noun: str) -> str:
    """``1 request``, ``2 requests``, ``12,000 requests``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def tokens(usage: Usage) -> str:
    """What was consumed: ``1,234 tokens in, 56 out``; what no server reported is shown as unknown."""
    if usage.total_tokens is None:
        return "tokens unknown"
    counts = [
        "?" if number is None else f"{number:,}" for number in (usage.input_tokens, usage.output_tokens)
    ]
    cached = f" ({usage.cache_read_tokens:,} cached)" if usage.cache_read_tokens else ""
    partly = ", more unknown" if usage.incomplete else ""
    return f"{counts[0]} tokens in{cached}, {counts[1]} out{partly}"


def dollars(cost: float | None) -> str:
    """A cost in US dollars: ``$0.0031``, ``$1.27``; ``$?`` where nobody knows it."""
    if cost is None:
        return "$?"
    return f"${cost:.4f}" if 0 < cost < 0.995 else f"${cost:,.2f}"


def folder_name(path: str, home: str, width: int) -> str:
    """A folder in at most ``width`` characters: ``~/src/app``, or the end of it."""
    shown = path
    if home and (path == home or path.startswith(f"{home}/")):
        shown = f"~{path.removeprefix(home)}"
    return shown if len(shown) <= width else f"…{shown[len(shown) - width + 1 :]}"


def arguments(values: dict[str, Any], width: int = 80) -> str:
    """A call's arguments on one line: ``path='a.txt', limit=3``. What is cut says so."""
    said = ", ".join(f"{key}={_value(value, width)}" for key, value in values.items())
    return cut(visible(said), width)


def _value(value: Any, most: int) -> str:
    if isinstance(value, str):
        return repr(value[:most]) + ("…" if len(value) > most else "")
    shown = repr(value)
    return shown if len(shown) <= most else f"{shown[:most]}…"
