"""Whether it is a person who answers."""

from __future__ import annotations

from actors.runtime.children.ancestry import launcher_above


def why_no_person(pid: int | None = None) -> str | None:
    """Why the process ``pid``, by default this one, may not answer for a person: a pod or an agent has
    started it, at whatever remove. None where it may.
    """
    launcher = launcher_above(pid)
    if launcher is None:
        return None
    return (
        "only a person may answer, at a terminal of their own: a pod has started this command (below "
        f"process {launcher}, which starts programs for pods)"
    )
