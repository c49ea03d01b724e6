"""``SourcedTools``: the current tools of pods with tool sources, their plain tools included."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from actors.pod.runs.tool_runner import ToolRunner
from actors.runtime.latest import Latest
from actors.tools.base import Tool
from actors.tools.open_sources import SharedSource

_LEFT_OUT = "left out because another tool has the same name:"


class SourcedTools:
    """The plain tools of pods of one template, followed by those of their sources."""

    __slots__ = ("_made", "_plain", "_reported", "_seen", "_sources")

    def __init__(self, plain: ToolRunner, sources: Iterable[SharedSource]) -> None:
        self._plain = plain
        self._sources = tuple(dict.fromkeys(sources))
        #: Made anew only where a list has changed: so a request begins like the one before.
        self._made = Latest(self._make)
        #: The names of all tools that there ever were.
        self._seen: set[str] = set()
        #: The last alert about lists that cannot be used as they are.
        self._reported = ""

    def with_plain(self, plain: ToolRunner) -> SourcedTools:
        """The same sources with other plain tools, for a run that brings its own."""
        made = SourcedTools(plain, ())
        made._sources = self._sources
        return made

    def hold(self) -> None:
        """Count one more pod that uses the sources."""
        for each in self._sources:
            each.hold()

    def release(self) -> None:
        """Count one pod less."""
        for each in self._sources:
            each.release()

    def writers(self) -> list[str]:
        """The names of the sources that run a process which could write."""
        return [each.name for each in self._sources if each.may_write]

    @property
    def are_open(self) -> bool:
        """Whether all sources can be asked."""
        return all(each.is_open for each in self._sources)

    @property
    def are_listed(self) -> bool:
        """Whether all sources have listed their tools."""
        return all(each.is_listed for each in self._sources)

    async def wait_open(self) -> None:
        """Open the sources, all at once, and wait for that. Raises ToolSourceError."""
        for each in self._sources:
            each.begin_to_open()
        for each in self._sources:
            await each.wait_open()

    def look(self, alert: Callable[[str], object]) -> ToolRunner:
        """The tools as they are now. ``alert`` is called, once, with a message about a list that cannot be
        used as it is. Raises ToolSourceError if a source has not listed its tools yet.
        """
        looked = [each.look() for each in self._sources]
        runner, left_out = self._made(*[tools for tools, _ in looked])
        words = "; ".join([*(failed for _, failed in looked if failed is not None), *left_out])
        if words != self._reported:
            self._reported = words
            if words:
                alert(words)
        return runner

    def _make(self, *lists: tuple[Tool, ...]) -> tuple[ToolRunner, list[str]]:
        """The tools and specs of these lists, and a message about what was left out: of two tools with one
        name the first stands, since no model accepts both.
        """
        chosen = {each.name: each for each in self._plain.toolbox}
        left_out: list[str] = []
        for source, tools in zip(self._sources, lists, strict=True):
            others = [each for each in tools if chosen.setdefault(each.name, each) is not each]
            left_out += [f"{_LEFT_OUT} {each.name!r} of source {source.name!r}" for each in others]
        self._seen |= chosen.keys()
        return self._plain.with_tools(chosen.values(), gone=self._seen - chosen.keys()), left_out
