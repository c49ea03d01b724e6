"""The built-in tools by group and by name, as a manifest asks for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from actors.tools.agents import AGENT_TOOLS
from actors.tools.base import Tool
from actors.tools.filesystem.files import FILES
from actors.tools.filesystem.search import SEARCH
from actors.tools.memory import MEMORY_TOOLS
from actors.tools.pods import POD_TOOLS
from actors.tools.shell.tools import SHELL_TOOLS
from actors.tools.web.fetch import FETCH, require_markdown
from protocol.closest import closest
from protocol.errors import ManifestError

BUILTIN_GROUPS: dict[str, tuple[Tool, ...]] = {
    "files": FILES,
    "search": SEARCH,
    "memory": MEMORY_TOOLS,
    "fetch": FETCH,
    "pods": POD_TOOLS,
    "agents": AGENT_TOOLS,
    "shell": SHELL_TOOLS,
}

_NO_MORE: Mapping[str, tuple[Tool, ...]] = {}


def builtin(names: Iterable[str], more: Mapping[str, tuple[Tool, ...]] = _NO_MORE) -> tuple[Tool, ...]:
    """The built-in tools that ``names`` (of groups or of single tools) stand for, each once; ``more``
    are groups that belong to a higher layer.

    Raises ManifestError for a name that there is not, and for a tool whose library is not installed.
    """
    groups = {**BUILTIN_GROUPS, **more}
    tools = {each.name: (each,) for group in groups.values() for each in group}
    known = {**groups, **tools, **groups}  # of a name that is both, the group
    chosen: dict[str, Tool] = {}
    for name in names:
        if name not in known:
            near = closest(name, known)
            guess = f"; did you mean {near!r}?" if near else ""
            raise ManifestError(
                f"tools.builtin: there is no built-in tool {name!r}{guess}",
                hint=f"the built-in groups and tools are: {', '.join(known)}",
            )
        chosen.update((each.name, each) for each in known[name])
    if "fetch" in chosen:
        require_markdown()
    return tuple(chosen.values())
