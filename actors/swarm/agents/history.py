"""Reads the record of an agent: its session, and those of the pod that it is, in order of time."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from operator import attrgetter

from actors.pod.session.restore import tip
from actors.sessions.answers import settled
from actors.sessions.store import SessionStore
from actors.swarm.agents.record import read_pages
from protocol.entries import Entry, OtherEntry, SessionOpened
from protocol.errors import SessionNotFound
from protocol.events import AgentStarted, DurableEvent

#: Runners of agents that are pods: their sessions are in the store too.
POD_RUNNERS = ("pod", "process")


async def read_history(
    store: SessionStore, session_id: str, agent_id: str
) -> list[DurableEvent | SessionOpened]:
    """All events of an agent and of its pod; the first is what opened its session. Raises SessionError,
    WireError.
    """
    own = [each async for page, _ in read_pages(store, session_id) for each in page]
    pods = list[DurableEvent]()
    for pod_session in pod_sessions_of(own):
        for each in await pod_chain(store, pod_session):
            pods += [
                event
                async for page, _ in read_pages(store, each)
                for event in page
                if isinstance(event, DurableEvent) and event.pod != agent_id
            ]
    return list(heapq.merge(_events(own), pods, key=attrgetter("at")))


def pod_sessions_of(entries: Iterable[Entry | OtherEntry]) -> list[str]:
    """The sessions of the pods that an agent was, each once and by its last name."""
    found = [
        each.session
        for each in entries
        if isinstance(each, AgentStarted) and each.runner in POD_RUNNERS and each.session is not None
    ]
    return list(dict.fromkeys(found))[:1]


async def pod_chain(store: SessionStore, session_id: str) -> list[str]:
    """A pod's session, those that it came from, and those that came from it by compaction, oldest first;
    without those that no longer exist. Raises StoreError.
    """
    chain = list[str]()
    try:
        parent: str | None = await tip(store, session_id)
        while parent is not None and parent not in chain:
            above = (await settled(store.info(parent))).parent
            chain.append(parent)
            parent = None if above is None else above.session_id
    except SessionNotFound:
        pass
    return chain[::-1]


def _events(entries: Iterable[Entry | OtherEntry]) -> list[DurableEvent | SessionOpened]:
    return [each for each in entries if isinstance(each, DurableEvent | SessionOpened)]
