"""After old sessions were deleted, replay begins at the oldest ancestor there is and says what is gone, and
who knows an old session finds the last.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.cli.sessions.store_reader import Reading
from actors.llm.scripted import ScriptedClient, call, say
from actors.sessions import retention
from actors.system import PodSystem
from protocol.events import CompactDone, Lagged, RunEnd
from protocol.manifest import PodManifest


@pytest.mark.parametrize("url", ["memory:", "sqlite:{}/s.db", "jsonl:{}"])
async def test_replay_after_gc_says_what_is_gone_and_goes_on_from_there(tmp_path: Path, url: str):
    async with PodSystem(store=url.format(tmp_path)) as system:
        script = [say("1"), call("write_summary", {"text": "s"}), say("done"), say("2")]
        script += [call("write_summary", {"text": "s"}), say("done"), say("3")]
        pod = await system.spawn(PodManifest.of(name="p"), client=ScriptedClient(script))
        other = await system.spawn(PodManifest.of(name="other"), client=ScriptedClient([]))
        first = (await pod.describe()).session_id
        await pod.run("one")
        await pod.compact(retained_tokens=0)
        second = (await pod.describe()).session_id
        await pod.run("two")
        await pod.compact(retained_tokens=0)
        await pod.run("three")
        whole = pod.subscribe(since=0).drain()
        gone = retention.collect(system.store, superseded=True)
        assert {info.session_id for info in gone} == {first, second}
        for events in (
            pod.subscribe(since=0),
            system.subscribe(since=0),
            system.subscribe(since={"p": 0}),
        ):
            published = [event for event in events.drain() if event.pod == "p"]
            lagged = published[0]
            assert isinstance(lagged, Lagged)
            assert (lagged.deleted, lagged.session_id, lagged.missed) == (True, second, lagged.seq)
            assert published[1:] == [event for event in whole if event.seq > lagged.seq]
        ends = pod.subscribe(kinds=RunEnd, since=0).drain()
        assert [type(event) for event in ends] == [Lagged, RunEnd]
        done = whole[[type(event) for event in whole].index(CompactDone)]
        again = pod.subscribe(since=done.seq).drain()  # as who lagged behind subscribes again
        assert again[0].missed == lagged.seq - done.seq
        later = pod.subscribe(since=lagged.seq).drain()
        assert later == published[1:]
        assert other


@pytest.mark.parametrize("url", ["sqlite:{}/s.db", "jsonl:{}"])
async def test_a_name_leads_to_the_last_session_where_gc_has_deleted_all_compactions_before_it(
    tmp_path: Path, url: str
):
    url, manifest = url.format(tmp_path), PodManifest.of(name="p")
    async with PodSystem(store=url) as system:
        script = [say("1"), call("write_summary", {"text": "s"}), say("done"), say("2")]
        script += [call("write_summary", {"text": "s"}), say("done"), say("3")]
        pod = await system.spawn(manifest, client=ScriptedClient(script), session="nightly")
        between = "nightly"
        for words in "one", "two":
            await pod.run(words)
            between, last = (await pod.describe()).session_id, await pod.compact(retained_tokens=0)
        await pod.run("three")
        gone = retention.collect(system.store, superseded=True)
        assert {info.session_id for info in gone} == {"nightly", between}
    with Reading(url) as reading:
        for known in "nightly", between:
            assert reading.find(known).session_id == last
    async with PodSystem(store=url) as system:
        pod = await system.spawn(manifest, client=ScriptedClient([]), session="nightly")
        assert (await pod.describe()).session_id == last
