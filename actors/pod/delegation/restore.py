"""Starts the sub-agents of a restored pod again, from what their sessions say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actors.pod.delegation.grants import child_manifest
from actors.pod.session.lifecycle import Resumed
from actors.pod.session.restore import last_run, restore, tip
from actors.sessions.answers import settled
from actors.tools.pods import Asked
from protocol.delegation import cost_sum, usage_sum
from protocol.entries import SessionOpened
from protocol.errors import NewerVersion, SessionNotFound
from protocol.manifest import PodManifest
from protocol.text import UNDECODABLE
from protocol.wire import decode_entry

if TYPE_CHECKING:
    from actors.pod.delegation.delegation import Delegation
    from actors.pod.delegation.sub_agent import SubAgent
    from protocol.events import ChildStarted

#: How a run ends that goes on no more: those that are paused do.
_OUTCOMES = frozenset({"finished", "refused", "limit_reached", "cancelled", "budget", "failed"})


async def bring_back(delegation: Delegation, child: SubAgent) -> None:
    """Start a sub-agent again with its run paused; if it had finished its work, its end is recorded instead.
    Raises PolypodError.
    """
    store, started = delegation.template.store, child.started
    session = await tip(store, child.session)
    last = await last_run(store, await settled(store.info(session)))
    if last in _OUTCOMES:
        child.ending = True
        state, _ = await restore(store, session)
        taken = state.children
        took = (
            usage_sum(state.usage, taken.usage),
            cost_sum(state.cost, taken.cost),
            state.seconds + taken.seconds,
        )
        delegation.charge(*took)
        await delegation.record_ended(started, last, None, took)  # type: ignore[arg-type]
        return
    manifest = await _manifest_of(delegation, started, session)
    child.resources = delegation.spawner.prepare(manifest, manifest.name, delegation)
    delegation.by_pod[child.resources.name] = child
    child.fresh, child.paused, child.held = last == "none", last != "none", True
    child.pod = await delegation.spawner.start(child.resources, Resumed(session, exact=False))


async def _manifest_of(delegation: Delegation, started: ChildStarted, session: str) -> PodManifest:
    """The manifest of a restored sub-agent: what it was given, within what its parent has now, which may be
    less than before.
    """
    first = await settled(delegation.template.store.read(session, after=0, limit=1))
    opened = decode_entry(first[0].body) if first else None
    if not isinstance(opened, SessionOpened):
        raise SessionNotFound(f"session {session} has no beginning")
    try:
        recorded = msgspec.json.decode(opened.manifest, type=PodManifest)
    except UNDECODABLE as error:
        raise NewerVersion(f"the manifest of session {session}", str(error)) from error
    asked = Asked(
        started.name,
        recorded.pod.system_prompt or "",
        started.task,
        model=recorded.model.model_id,
        budget=started.budget,
    )
    name = f"{delegation.name}.{started.name}"
    return child_manifest(delegation.template.manifest, name, asked, delegation.scope.part(started.scope))
