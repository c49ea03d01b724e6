"""What a sub-agent is given of what its parent has: each grant only narrows; pure."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from actors.pod.delegation.narrowing import beyond, withdrawn
from actors.tools.pods import POD_TOOLS, Asked
from protocol.errors import ToolError
from protocol.manifest import BudgetSection, PodManifest
from protocol.scope import Scope
from protocol.text import encodable

#: What has a pod have sub-agents.
DELEGATES = frozenset({"pods", *(each.name for each in POD_TOOLS)})


def child_manifest(parent: PodManifest, name: str, asked: Asked, scope: Scope) -> PodManifest:
    """The manifest of a sub-agent: its parent's, narrowed to what was asked for."""
    depth = parent.delegation.max_depth - 1
    builtin = tuple(each for each in parent.tools.builtin if depth > 0 or each not in DELEGATES)
    model = parent.model if asked.model is None else replace(parent.model, model_id=asked.model)
    return parent.replace(
        pod=replace(parent.pod, name=name, system_prompt=encodable(asked.instruction)),
        model=model,
        scope=scope,
        budget=asked.budget or BudgetSection(),
        tools=replace(parent.tools, builtin=builtin),
        delegation=replace(parent.delegation, max_depth=depth),
    )


def refuse_beyond(own: Scope, asked: Scope, given: Mapping[str, Scope]) -> None:
    """Refuse what exceeds the parent's ``own`` scope, or overlaps what it has ``given`` to others, by name.
    Raises ToolError, which names the rule.
    """
    if (found := beyond(own, asked)) is not None:
        raise ToolError(
            f"refused: {found}", hint="request a smaller scope, or deny this path in the requested scope"
        )
    if (found := beyond(withdrawn(own, given.values()), asked)) is None:
        return
    holder = next((name for name, scope in given.items() if scope.permits(found.path, "write")), "another")
    raise ToolError(
        f"refused: scope.allow[{found.index}] would allow write access to {found.path}, which "
        f"only sub-agent {holder!r} may write until it ends",
        hint="wait for it, or stop it",
    )
