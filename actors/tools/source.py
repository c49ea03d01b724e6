"""``ToolSource``: where tools come from that come and go while pods run: a database, a server, a plug-in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from actors.tools.base import Tool


class ToolSource(Protocol):
    """Tools with a life of their own, given to pods beside plain ones: ``spawn(tools=[search, source])``.

    Contract: all of it is called on the event loop of the system; a source belongs to one system at a time.
    Pods that are given the same object share it. It is opened once, when a run of any of them first needs it,
    and closed when the last of them has gone, or the system ends; a pod that comes later has it opened again.
    ``open`` and ``close`` are awaited in one task, so that a task group or an ``AsyncExitStack`` may live
    between them; that task has no context variables of any pod. If it is cancelled in between, as by a task
    group whose work has failed, the source is closed, and opened again for the next request. A source may
    have a ``name``, which is what errors call it.
    """

    async def open(self) -> None:
        """Prepare to say which tools there are.

        Only runs that need it wait, for as long as it takes: set a limit if that may be long. What it raises
        fails them as a ToolSourceError, and the next run has it opened anew; ``close`` follows only if it has
        returned. It is cancelled if the last pod ends meanwhile.
        """
        ...

    def tools(self) -> Iterable[Tool | Callable[..., Any]]:
        """The tools that there are now, in a stable order.

        Asked before each request of each run, and before the calls of its answer are run. So it returns at
        once what is known: a source that has to ask a server keeps the list, and follows its changes in a
        task of its own. The same objects as the last time mean that nothing has changed; a change makes
        models read the whole conversation anew, since their caches begin with the tools. Where this raises,
        the tools that were there stay, and an ``Alert`` says so; where it has never given any since it was
        opened, the run fails with ToolSourceError.
        """
        ...

    async def close(self) -> None:
        """Let go of what ``open`` took. Cancelled after ``PodSystem(grace=…)`` seconds.

        Calls that did not end though they were cancelled may still be at work: what they ask for fails
        from now on.
        """
        ...


def is_source(given: Any) -> bool:
    """Whether what was given as a tool is a source of tools."""
    return not isinstance(given, Tool | type) and has_methods_of_source(given)


def has_methods_of_source(given: Any) -> bool:
    """Whether an object, or the instances of a class, are sources of tools."""
    return all(callable(getattr(given, each, None)) for each in ("open", "tools", "close"))


def name_of(source: ToolSource) -> str:
    """What errors and people call it."""
    return str(getattr(source, "name", None) or type(source).__name__)
