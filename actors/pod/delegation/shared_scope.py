"""``SharedScope``: which part of its scope a pod may use itself, and which it may give to a sub-agent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from actors.pod.delegation.grants import refuse_beyond
from actors.pod.delegation.narrowing import withdrawn, writes
from actors.tools.base import ToolContext
from actors.tools.pods import Asked, ScopeAsked
from actors.tools.scope import resolved
from protocol.errors import ManifestError, ToolError
from protocol.manifest import BudgetSection, PodManifest, anchored, check_manifest
from protocol.scope import Scope

if TYPE_CHECKING:
    from actors.pod.resources import PodTemplate
    from actors.tools.shell.pod_commands import PodCommands


class SharedScope:
    """The scope of one pod, of which sub-agents have parts; where a sub-agent may write, only that one
    writes.
    """

    def __init__(self, template: PodTemplate) -> None:
        self._template = template
        #: What the pod could touch if it had given nothing away, and what it can.
        self._own = template.tools.scope
        self.left: Scope = self._own
        #: The last call in a thread, and those before it whose thread is still at work.
        self._calls: list[tuple[str, ToolContext]] = []

    def leave_out(self, given: Iterable[Scope]) -> None:
        """Restrict the pod to what remains beside the scopes now ``given`` to sub-agents."""
        self.left = withdrawn(self._own, given)

    def part(self, scope: Scope) -> Scope:
        """The part of a scope that lies within the pod's own."""
        return self._own.narrow(scope)

    def note_call(self, tool: str, ctx: ToolContext) -> None:
        """Note that a call of the pod begins in a thread, and may outlive its cancel."""
        self._calls = [*(each for each in self._calls if each[1].is_at_work), (tool, ctx)]

    def check_asked(self, asked: Asked, given: Mapping[str, Scope], commands: PodCommands | None) -> Scope:
        """The requested scope, if it is within what the pod has beside what is ``given`` to others, by name.
        Raises ToolError.
        """
        scope = self._resolved(asked)
        if writes(scope):
            self._refuse_beside_writers(commands)
        refuse_beyond(self._own, scope, given)
        return scope

    def _resolved(self, asked: Asked) -> Scope:
        """The requested scope with its paths resolved. Raises ToolError for a scope or budget that no
        manifest may have.
        """
        given = ScopeAsked() if asked.scope is None else asked.scope
        scope = Scope(given.allow, given.deny)
        try:
            check_manifest(PodManifest(scope=scope, budget=asked.budget or BudgetSection()), "spawn_pod")
        except ManifestError as error:
            raise ToolError(error.message, hint=error.hint) from error
        return resolved(anchored(scope, Path(self._template.manifest.pod.pwd)))

    def _refuse_beside_writers(self, commands: PodCommands | None) -> None:
        """Refuse to give away write permission while a call or command of the pod might still write there.
        Raises ToolError.
        """
        sources = self._template.sources
        at_work = [] if commands is None else commands.at_work
        threads = [tool for tool, ctx in self._calls if ctx.is_at_work]
        servers = [] if sources is None else sources.writers()
        for names, what, hint in (
            (at_work, "commands in the background", "wait for them, or end them with shell_stop"),
            (threads, "abandoned tool calls", "try again after they end"),
            (servers, "tool servers that can write", "give the sub-agent a read-only scope"),
        ):
            if names:
                raise ToolError(
                    f"refused: a sub-agent must be the only writer in its scope, but {what} "
                    f"could still write there: {', '.join(names)}",
                    hint=hint,
                )
