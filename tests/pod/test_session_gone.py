"""A pod whose session is in the store no more, or not whole, goes on in a session of its own, with all that it
knows.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from actors.llm.scripted import say
from actors.system import PodSystem
from protocol.errors import RunFailed
from protocol.events import SessionForked
from protocol.manifest import PodManifest


class Parrot:
    async def stream(self, request):
        async for block in say("yes").stream():
            yield block


async def test_a_pod_whose_session_is_not_in_the_backup_that_was_put_in_place_goes_on(tmp_path: Path) -> None:
    async with PodSystem(store=f"sqlite:{tmp_path}/pods.db") as system:
        with closing(sqlite3.connect(tmp_path / "pods.db")) as db:
            db.execute("VACUUM INTO ?", (str(tmp_path / "backup"),))
        pod = await system.spawn(PodManifest.of(), client=Parrot())
        await pod.run("one")
        (tmp_path / "backup").replace(tmp_path / "pods.db")
        with pod.subscribe(kinds=SessionForked) as forks:
            with pytest.raises(RunFailed, match="another file has taken its place"):
                await pod.run("two")
            result = await pod.run("three")
            assert len(forks.drain()) == 1
        assert result.session_id == (await pod.describe()).session_id
        assert "one" in [item.text for item in await pod.history()]
        assert [info.session_id for info in system.store.sessions()] == [result.session_id]


@pytest.mark.parametrize("how", ["truncated", "replaced"])
async def test_the_name_of_a_session_that_was_cut_under_its_pod_leads_to_where_the_pod_goes_on(
    tmp_path: Path, how: str
) -> None:
    url, file = f"jsonl:{tmp_path}", tmp_path / "nightly.jsonl"
    async with PodSystem(store=url) as system:
        pod = await system.spawn(PodManifest.of(), client=Parrot(), session="nightly")
        await pod.run("one")
        before = file.read_bytes()
        fork = await pod.fork()
        await pod.run("two")
        if how == "truncated":
            os.truncate(file, len(before))
        else:
            (tmp_path / "backup").write_bytes(before)
            (tmp_path / "backup").replace(file)
        went_on = (await pod.run("three")).session_id
        assert went_on not in {"nightly", fork}
    async with PodSystem(store=url) as system:
        pod = await system.spawn(PodManifest.of(), client=Parrot(), session="nightly")
        assert (await pod.describe()).session_id == went_on
        assert [item.text for item in await pod.history()][::2] == ["one", "two", "three"]


async def test_a_name_does_not_lead_to_a_fork_though_its_session_has_lost_the_end(tmp_path: Path) -> None:
    url, file = f"jsonl:{tmp_path}", tmp_path / "nightly.jsonl"
    async with PodSystem(store=url) as system:
        pod = await system.spawn(PodManifest.of(), client=Parrot(), session="nightly")
        await pod.run("one")
        before = file.read_bytes()
        await pod.run("two")
        await pod.fork()
        await pod.stop()
        os.truncate(file, len(before))
        pod = await system.spawn(PodManifest.of(), client=Parrot(), session="nightly")
        assert (await pod.describe()).session_id == "nightly"
