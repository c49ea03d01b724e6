"""A branch of a session that is at work: its record is whole, and one that nobody learnt of is gone."""

from __future__ import annotations

import pytest
from every_commit import check_ends
from pod_stage import Stage, all_of, on_each_store, on_stage  # noqa: F401
from test_between import GatedStore, with_gated_store

from actors.llm.scripted import say
from actors.sessions.answers import settled
from actors.sessions.repair import fork
from protocol.errors import PodStopped, StoreError
from protocol.events import DurableEvent, RunEnd, RunStart, SessionForked, UserMessage
from protocol.manifest import PodManifest

pytestmark = pytest.mark.usefixtures("on_each_store")


async def record_of_runs(stage: Stage, session: str) -> list[DurableEvent]:
    """What the record of a session, which a pod resumes, says of runs."""
    pod = await stage.system.spawn(PodManifest.of(name="b"), client=stage.client, resume=session)
    with stage.system.subscribe(pod.name, since=0) as events:
        published = [each for each in await all_of(events) if isinstance(each, DurableEvent)]
    check_ends(published)
    await pod.stop()
    return [each for each in published if isinstance(each, RunStart | RunEnd)]


@pytest.mark.parametrize("offline", [False, True])
def test_a_branch_that_is_made_in_mid_run_records_the_end_of_that_run(offline: bool) -> None:
    async def play(stage: Stage) -> None:
        with stage.system.subscribe("p", [UserMessage]) as events:
            run = await stage.running("1")
            last = events.drain()[-1]
        store = stage.system.store
        entries = await settled(store.read(last.session_id))
        at = next(each.hash.hex() for each in entries if each.seq == last.seq)
        if offline:
            session = fork(store, last.session_id, "offline", at=at).session_id
        else:
            forked = stage.pod.fork(at=at)
            stage.pod.steer("more")  # one more request, before which the pod branches
            stage.answer()
            session = await forked
        started, ended = await record_of_runs(stage, session)
        assert isinstance(ended, RunEnd)
        assert (ended.run_id, ended.outcome) == (started.run_id, "cancelled")
        assert ended.error is not None
        assert "branched off" in ended.error.message
        stage.answer()
        if offline:
            await run
        else:
            stage.answer()
            assert (await run).outcome == "finished"

    on_stage([say("a"), say("b")], play)


def test_a_branch_of_a_paused_run_is_idle_and_says_so() -> None:
    async def play(stage: Stage) -> None:
        await stage.paused("1")
        published = await record_of_runs(stage, await stage.pod.fork())
        assert [each.outcome for each in published if isinstance(each, RunEnd)] == ["paused", "cancelled"]
        await stage.pod.cancel()

    on_stage([say("a")], play)


def test_a_branch_that_the_store_does_not_let_be_recorded_is_deleted() -> None:
    async def play(stage: Stage, store: GatedStore) -> None:
        store.shut = True
        forked = stage.pod.fork()
        await store.arrival()
        store.end()
        await store.arrival()
        assert len(store.sessions()) == 2
        store.end(StoreError("full"))
        store.open()
        with pytest.raises(StoreError, match="full"):
            await forked
        assert len(store.sessions()) == 1
        session = await stage.pod.fork()
        assert len(store.sessions()) == 2
        assert store.info(session).parent is not None

    with_gated_store([], play)


def test_a_branch_that_is_kept_while_its_pod_stops_is_deleted() -> None:
    async def play(stage: Stage, store: GatedStore) -> None:
        store.shut = True
        with stage.system.subscribe("p", [SessionForked]) as events:
            forked = stage.pod.fork()
            await store.arrival()
            stopped = stage.pod.stop()
            with pytest.raises(PodStopped):  # it has learnt of the stop
                await stage.pod.describe()
            store.open()
            await stopped
            assert events.drain() == []
        with pytest.raises(PodStopped):
            await forked
        assert len(store.sessions()) == 1

    with_gated_store([], play)
