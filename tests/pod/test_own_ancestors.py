"""Sessions that somebody has written such that they go on from themselves: nobody walks round them for ever."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import Raw, json
from store_kit import wait_until_done

from actors.cli.sessions.inspect import log as log_command
from actors.llm.scripted import ScriptedClient, say
from actors.pod.session.past_events import spans_of
from actors.pod.session.past_tree import PastTree
from actors.pod.session.restore import tip
from actors.sessions.chain import chained
from actors.sessions.memory.store import MemoryStore
from actors.sessions.sqlite.store import SQLiteStore
from actors.sessions.store import SessionStore
from actors.swarm.agents.history import pod_chain
from actors.system import PodSystem
from protocol.entries import Parent, SessionOpened
from protocol.events import ChildStarted, PodStarted
from protocol.manifest import PodManifest
from protocol.wire import encode

MANIFEST = Raw(json.encode(PodManifest.of(name="p")))
ROUND = [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "b", "b": "c", "c": "b"}]


def write(store: SessionStore, session: str, parent: str | None, *events: ChildStarted) -> None:
    origin = None if parent is None else Parent("compacted_from", parent, "00" * 32, 9)
    opened = SessionOpened(session_id=session, seq=1, at=1.0, pod="p", manifest=MANIFEST, parent=origin)
    started = PodStarted(pod="p", session_id=session, seq=2, at=1.0, model="m")
    wait_until_done(
        store.create(session, "p", origin, chained(map(encode, [opened, started, *events])), claim=False)
    )


@pytest.mark.parametrize("parents", ROUND)
async def test_a_session_that_is_its_own_ancestor_is_gone_on_with_as_itself(parents):
    store = MemoryStore()
    for session, parent in parents.items():
        write(store, session, parent)
    assert await tip(store, "a") == "a"
    spans, missing = await spans_of(store, "a", 0, 2)
    assert (len(spans), missing) == (1, None)
    assert len(await pod_chain(store, "a")) <= len(parents)
    async with PodSystem(store=store) as system:
        manifest = PodManifest.of(name="p")
        pod = await system.spawn(manifest, client=ScriptedClient([say("hi")]), resume="a")
        assert (await pod.run("hello")).session_id == "a"
        assert len(pod.subscribe(since=0).drain()) > 2


@pytest.mark.parametrize("parents", ROUND)
def test_a_tree_of_sessions_that_are_their_own_ancestors_is_shown(parents, tmp_path, capsys):
    store = SQLiteStore(tmp_path / "s.db")
    for session, parent in parents.items():
        write(store, session, parent)
    store.close()
    log_command.main(["a", "--tree", "--store", f"sqlite:{tmp_path}/s.db"], standalone_mode=False)
    shown = capsys.readouterr().out
    assert [each for each in parents if f" {each}  p" in shown] == list(parents)


async def test_a_sub_agent_whose_log_is_that_of_its_parent_is_left_out():
    store = MemoryStore()
    child = ChildStarted("p", "a", 3, 1.0, child="p.x", child_session="a", name="x")
    write(store, "a", None, child)

    async def nobody_starts(_: str) -> None:
        await asyncio.sleep(0)

    tree = PastTree(store, "p", 0, nobody_starts, dict)
    await tree.begin()
    page = await tree.page()
    assert page is not None
    assert len(list(page)) == 3
    assert await tree.page() is None
