"""Finds the agents of a folder: by their files, or by their sessions if the files are gone or unreadable."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection
from pathlib import Path

from msgspec import Struct

from actors.sessions.answers import settled
from actors.sessions.store import SessionStore
from actors.swarm.agents.projections import Meta, is_unrecorded, read_meta
from protocol.agents import AgentSpec, spec_of
from protocol.entries import SessionOpened
from protocol.errors import SessionError, WireError
from protocol.wire import decode_entry

#: What ids of agents look like, so that few sessions of pods have to be looked into.
_ID = re.compile(r"[a-z0-9-]+-\d{1,6}")


class Found(Struct, frozen=True):
    """An agent, and the session that holds its record."""

    spec: AgentSpec
    session_id: str


async def find_agents(
    store: SessionStore, root: Path, known: Collection[str], *, by_sessions: bool
) -> tuple[list[Found], list[str]]:
    """The agents of the folder ``root`` besides those already known, and what is wrong with some. Agents
    whose files are gone are found only ``by_sessions``, which reads all sessions of the store. Raises
    StoreError.
    """
    folders = {each.name: read_meta(each) for each in _folders(root) if each.name not in known}
    problems: list[str] = []
    found: dict[str, Found] = {}
    for agent_id, meta in folders.items():
        if (agent := await _look(store, agent_id, meta)) is not None:
            found[agent_id] = agent
        elif not is_unrecorded(root / "agents" / agent_id):
            other = "" if meta is None or meta.store == store.url else f", but in {meta.store}"
            problems.append(f"{agent_id}: it has no session in {store.url}{other}")
    for info in await settled(store.sessions()) if by_sessions else ():
        if info.pod in known or info.pod in folders or not _ID.fullmatch(info.pod):
            continue
        agent = await _read_agent(store, info.session_id)
        if agent is not None and (agent.spec.id, agent.spec.root) == (info.pod, str(root)):
            found[info.pod] = agent
    return list(found.values()), problems


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(each for each in (root / "agents").iterdir() if each.is_dir())
    except OSError:
        return []


async def _look(store: SessionStore, agent_id: str, meta: Meta | None) -> Found | None:
    """The agent of a folder; its file only says where to look."""
    if meta is not None and meta.agent.id == agent_id:
        agent = await _read_agent(store, meta.session_id)
        if agent is not None and agent.spec.id == agent_id:
            return agent
        if agent is None and await _is_there(store, meta.session_id):  # damaged, and to be removed
            return Found(meta.agent, meta.session_id)
    for info in await settled(store.sessions(pod=agent_id)):
        agent = await _read_agent(store, info.session_id)
        if agent is not None and agent.spec.id == agent_id:
            return agent
    return None


async def _is_there(store: SessionStore, session_id: str) -> bool:
    try:
        await settled(store.info(session_id))
    except SessionError:
        return False
    return True


async def _read_agent(store: SessionStore, session_id: str) -> Found | None:
    """The agent whose session that is; None if the session is a pod's, is damaged or does not exist."""
    try:
        page = await settled(store.read(session_id, limit=1))
        opened = decode_entry(page[0].body) if page else None
    except (SessionError, WireError):
        return None
    await asyncio.sleep(0)
    spec = spec_of(opened.manifest) if isinstance(opened, SessionOpened) else None
    return None if spec is None else Found(spec, session_id)
