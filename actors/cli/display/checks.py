"""``Check``: one finding of ``polypod doctor`` or ``config check``, and how people read it."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import Literal

from msgspec import Struct

from actors.cli.display.format import clean, plain

_SIGNS = {"ok": "✓", "missing": "·", "failed": "✗"}


class Check(Struct, frozen=True, omit_defaults=True):
    """What was found of one thing: ``missing`` is what one can do without, ``failed`` is set up and cannot
    work.
    """

    name: str
    status: Literal["ok", "missing", "failed"]
    text: str
    todo: str | None = None


def check_lines(check: Check) -> str:
    """A check as people read it, within the width of the terminal."""
    width = max(20, shutil.get_terminal_size().columns - 1)
    lines = textwrap.wrap(
        clean(f"{_SIGNS[check.status]} {check.name}: {check.text}"), width, subsequent_indent="    "
    )
    if check.todo is not None:
        lines += textwrap.wrap(
            clean(f"→ {check.todo}"), width, initial_indent="    ", subsequent_indent="      "
        )
    text = "\n".join(lines)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return plain(text)
    return text
