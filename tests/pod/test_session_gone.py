"""A pod whose session is in the store no more goes on in a session of its own, with all that it knows."""

from __future__ import annotations

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
