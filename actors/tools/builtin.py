"""The built-in tools by group and by name, as a manifest asks for them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from actors.tools.base import Tool
from actors.tools.files import FILES
from actors.tools.memory import MEMORY_TOOLS
from actors.tools.search import SEARCH
from protocol.errors import ManifestError

BUILTIN_GROUPS: dict[str, tuple[Tool, ...]] = {
    "files": FILES,
    "search": SEARCH,
    "memory": MEMORY_TOOLS,
}

_BY_NAME: dict[str, tuple[Tool, ...]] = {
    **BUILTIN_GROUPS,
    **{each.name: (each,) for group in BUILTIN_GROUPS.values() for each in group},
}


def builtin(names: Iterable[str]) -> tuple[Tool, ...]:
    """The built-in tools that ``names`` (of groups or of single tools) stand for, each once.

    Raises ManifestError for a name that there is not.
    """
    chosen: dict[str, Tool] = {}
    for name in names:
        if name not in _BY_NAME:
            close = difflib.get_close_matches(name, _BY_NAME, 1)
            guess = f"; did you mean {close[0]!r}?" if close else ""
            raise ManifestError(
                f"tools.builtin: there is no built-in tool {name!r}{guess}",
                hint=f"there are, groups first: {', '.join(_BY_NAME)}",
            )
        chosen.update((each.name, each) for each in _BY_NAME[name])
    return tuple(chosen.values())
