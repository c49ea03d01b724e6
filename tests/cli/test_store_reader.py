"""The reader of stores: sessions found, checked and reported without making pods of them."""

import asyncio
import contextlib
import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from msgspec import Raw
from store_kit import change_entry, make
from swarm.agent_kit import wait_for_ever

from actors.cli.errors import SeveralFit
from actors.cli.sessions.inspect import last_words, listed, stand_of
from actors.cli.sessions.maintenance import _find
from actors.cli.sessions.store_reader import Reading
from actors.cli.top.pods import rows_of_pods
from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.approvals.find import open_requests
from actors.sessions.chain import chained
from actors.sessions.head import short_id
from actors.sessions.jsonl.store import JsonLinesStore
from actors.sessions.sqlite.store import SQLiteStore
from actors.swarm.agents.swarm import Swarm
from actors.swarm.runners.function import AgentContext
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.entries import SessionOpened
from protocol.errors import ModelError, RunFailed, SessionCorrupt, SessionNotFound
from protocol.events import RunStart
from protocol.manifest import PodManifest
from protocol.wire import encode


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path / 'pods.db'}"


def made(store: str, *, forks: int = 0, runs: int = 1, fails: bool = False) -> list[str]:
    """Sessions of one pod: the first, and forks of forks, each with runs of its own."""

    async def main() -> list[str]:
        sessions: list[str] = []
        async with PodSystem(store=store) as system:
            for depth in range(forks + 1):
                client = ScriptedClient(
                    [say("ok") for _ in range(runs)] + [ModelError("no", kind="auth")] * fails
                )
                pod = await system.spawn(
                    PodManifest.of(name="p"), client=client, resume=sessions[-1] if depth else None
                )
                sessions[-1:] = [(await pod.describe()).session_id]
                for _ in range(runs):
                    await pod.run("hi")
                if fails:
                    with pytest.raises(RunFailed):
                        await pod.run("hi")
                if depth < forks:
                    sessions.append(await pod.fork())
                await pod.stop()
        return sessions

    return asyncio.run(main())


def test_what_is_not_there_is_not_made(tmp_path: Path):
    with Reading(f"sqlite:{tmp_path / 'none.db'}") as reading:
        assert reading.sessions() == []
        with pytest.raises(SessionNotFound, match=r"polypod ps"):
            reading.find("abc")
    assert not list(tmp_path.iterdir())


def test_a_session_is_found_by_its_beginning_if_only_one_has_it(store: str):
    first, second = made(store, forks=1)
    with Reading(store) as reading:
        assert reading.find(first).session_id == first
        assert reading.find(second[:-1]).session_id == second
        with pytest.raises(click.UsageError, match="2 sessions match") as caught:
            reading.find(first[:2])
        assert isinstance(caught.value, SeveralFit)
        assert sorted(caught.value.lines) == sorted(
            f"{short_id(each)}  just now, pod p: hi" for each in (first, second)
        )
        with pytest.raises(SessionNotFound):
            reading.find("")


def test_a_session_is_found_by_its_short_id_and_by_the_beginning_of_that(store: str):
    sessions = made(store, forks=1)
    with Reading(store) as reading:
        for each in sessions:
            assert reading.find(short_id(each)).session_id == each
            assert reading.find(short_id(each)[:8]).session_id == each


def test_the_last_run_is_reported_also_of_a_session_that_continues_anothers_numbers(store: str):
    sessions = made(store, forks=2)
    with Reading(store) as reading:
        assert [reading.last_run(reading.info(each)) for each in sessions] == ["finished"] * 3
        assert reading.info(sessions[2]).head.seq > reading.info(sessions[1]).head.seq


def test_the_last_run_is_found_behind_a_long_tail_of_other_entries(store: str):
    [session] = made(store, runs=40, fails=True)
    with Reading(store) as reading:
        assert reading.last_run(reading.info(session)) == "failed"


def test_a_session_in_which_nothing_was_run_says_so(store: str):
    [session] = made(store, runs=0)
    with Reading(store) as reading:
        assert reading.last_run(reading.info(session)) == "none"


def test_all_entries_are_read_page_by_page_and_checked(store: str):
    [session] = made(store, runs=130)
    with Reading(store) as reading:
        entries = list(reading.checked(session))
    assert len(entries) > 500
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))


def test_a_log_that_somebody_changed_is_refused_at_the_entry(store: str, tmp_path: Path):
    [session] = made(store)
    change_entry(tmp_path / "pods.db", 4, b"hi", b"ho")
    with Reading(store) as reading, pytest.raises(SessionCorrupt, match="damaged at entry 4"):
        list(reading.checked(session))


def test_the_manifest_of_a_session_is_what_its_pod_was_asked_to_be(store: str):
    [session] = made(store)
    with Reading(store) as reading:
        assert reading.manifest(session).name == "p"


def test_a_session_that_nobody_holds_has_no_holder(store: str):
    [session] = made(store)
    with Reading(store) as reading:
        assert reading.holder(session) is None
        assert reading.successors(session) == []


async def test_the_record_of_an_agent_that_is_a_pod_stands_as_its_pod_does(tmp_path: Path, store: str):
    begun = asyncio.Event()
    client = ScriptedClient([call("wait_for_ever", {}, id="c")])

    def listed() -> list[tuple[str, str]]:
        with Reading(store) as reading:
            found = reading.sessions(agent.id)
            return [
                (reading.task(each.session_id), last_words(each, stand_of(each, reading))) for each in found
            ]

    async with PodSystem(store=store) as system:
        swarm = Swarm(system, tmp_path / "root")
        agent = await swarm.start("dig", client=client, tools=[tool(wait_for_ever(begun))])
        await begun.wait()
        assert listed() == [("dig", f"running, in process {os.getpid()}")]
        await agent.cancel()
        assert listed() == [("dig", f"cancelled, in process {os.getpid()}")]
    assert listed() == [("dig", "cancelled")]


async def test_the_last_session_is_no_record_of_an_agent(store: str, tmp_path: Path):
    async def answer(agent: AgentContext) -> str:
        return f"did {agent.task}"

    async with PodSystem(store=store) as system:
        pod = await system.spawn(PodManifest.of(name="a"), client=ScriptedClient([say("ok")]))
        result = await pod.run("hi")
        await pod.stop()
        agent = await Swarm(system, tmp_path / "agents").start("it", answer)
        await agent.wait()
        await agent.stop()
        record = agent.session_id
    with Reading(store) as reading:
        assert reading.sessions()[0].session_id == record
        assert reading.find("last").session_id == result.session_id


async def test_the_last_session_is_one_in_which_something_was_said(store: str):
    async with PodSystem(store=store) as system:
        first = await system.spawn(PodManifest.of(name="a"), client=ScriptedClient([say("ok")]))
        result = await first.run("hi")
        await first.stop()
        unused = await system.spawn(PodManifest.of(name="b"))  # as a chat that is killed leaves it
        empty = (await unused.describe()).session_id
    with Reading(store) as reading:
        assert reading.sessions()[0].session_id == empty
        last, here = reading.find("last"), reading.newest(lambda _: True)
        assert here is not None
        assert [last.session_id, here.session_id] == [result.session_id] * 2
        only = reading.newest(lambda manifest: manifest.pod.name == "b")
        assert only is not None
        assert only.session_id == empty


def test_a_session_is_listed_with_three_queries_and_no_wait_for_another_thread(store: str):
    made(store)
    made(store)
    with Reading(store) as reading:
        sessions, asked = reading.sessions(), list[str]()
        reading._opened._connection.set_trace_callback(asked.append)
        with hops_counted() as hops:
            rows = list(listed(sessions, reading))
        assert (len(asked), hops) == (6, [])
    assert [(each.stand.last_run, each.summary.task) for each in rows] == [("finished", "hi")] * 2


def test_an_interrupted_session_in_which_nothing_was_asked_is_listed_as_quickly(tmp_path: Path):
    opened = SessionOpened(session_id="s", seq=1, at=1.0, pod="p", manifest=Raw(b'{"pod":{}}'))
    started = RunStart(pod="p", session_id="s", seq=2, at=1.0, run_id="r")
    with contextlib.closing(SQLiteStore(tmp_path / "pods.db")) as store:
        store.create("s", "p", None, chained(map(encode, [opened, started])), claim=False)
    with Reading(f"sqlite:{tmp_path}/pods.db") as reading:
        sessions = reading.sessions()
        with hops_counted() as hops:
            [row] = listed(sessions, reading)
    assert (row.stand, hops) == (("open", None, 0), [])


@contextlib.contextmanager
def hops_counted() -> Iterator[list[str]]:
    """The waits of this thread for what another one does on a loop."""
    hops: list[str] = []

    def notice(frame, event: str, _) -> None:
        if event == "call" and frame.f_code is asyncio.run_coroutine_threadsafe.__code__:
            hops.append(frame.f_back.f_code.co_name)

    sys.setprofile(notice)
    try:
        yield hops
    finally:
        sys.setprofile(None)


async def test_the_loop_has_nothing_to_close_when_a_session_was_looked_through_for_questions(store: str):
    await asyncio.to_thread(made, store)
    left, hooks = list[object](), sys.get_asyncgen_hooks()
    with contextlib.closing(SQLiteStore(store.partition(":")[2])) as opened:
        [info] = opened.sessions()
        sys.set_asyncgen_hooks(finalizer=left.append)
        try:
            assert await open_requests(opened, info) == ()
        finally:
            sys.set_asyncgen_hooks(*hooks)
    assert left == []


def test_of_many_files_the_last_changed_ones_are_looked_at_for_damage(tmp_path: Path):
    with contextlib.closing(JsonLinesStore(tmp_path)) as store:
        for name in "st":
            make(store, name, "a", claim=False)
        (tmp_path / "s.jsonl").write_bytes(b"nonsense\n")
        os.utime(tmp_path / "s.jsonl", (1, 1))
        assert (store.lately_unreadable(1), list(store.unreadable())) == ({}, ["s"])
        assert list(store.lately_unreadable(2)) == ["s"]


def test_what_a_listing_has_shown_is_not_read_again_to_see_whether_it_can_be(tmp_path: Path):
    opened: list[str] = []

    def notice(_, event: str, called: object) -> None:
        if event == "c_call" and called is os.open:
            opened.append(event)

    with contextlib.closing(JsonLinesStore(tmp_path)) as store:
        for name in "st":
            make(store, name, "a", claim=False)
        assert len(store.sessions()) == 2
        sys.setprofile(notice)
        try:
            assert store.unreadable() == {}
        finally:
            sys.setprofile(None)
        assert opened == []
        (tmp_path / "s.jsonl").write_bytes(b"nonsense\n")
        assert list(store.unreadable()) == ["s"]


def test_what_rm_names_by_its_whole_id_is_found_without_a_look_at_all_files(tmp_path: Path):
    looks: list[str] = []

    def notice(_, event: str, called: object) -> None:
        if event == "c_call" and called is os.scandir:
            looks.append(event)

    url = f"jsonl:{tmp_path}"
    with contextlib.closing(JsonLinesStore(tmp_path)) as store, Reading(url) as reading:
        make(store, "sound", "a", claim=False)
        make(store, "damaged-more", "a", claim=False)
        (tmp_path / "damaged.jsonl").write_bytes(b"nonsense\n")
        assert reading.sessions()
        sys.setprofile(notice)
        try:
            found = [_find(reading, store, each) for each in ("sound", "damaged")]
        finally:
            sys.setprofile(None)
        assert (found, looks) == (["sound", "damaged"], [])
        assert _find(reading, store, "damaged-m") == "damaged-more"


def test_a_damaged_session_is_a_row_beside_agents(store: str, tmp_path: Path):
    made(store)
    change_entry(tmp_path / "pods.db", 6, b'"finished"', b'"finis"ed"')
    [row] = rows_of_pods(store, ())
    assert (row.activity, row.task) == ("unreadable", "hi")


def test_a_session_whose_last_entries_are_damaged_hides_no_other(store: str, tmp_path: Path):
    [damaged], [sound] = made(store), made(store)
    change_entry(tmp_path / "pods.db", 6, b'"finished"', b'"finis"ed"')
    with Reading(store) as reading:
        rows = {each.info.session_id: each for each in listed(reading.sessions(), reading)}
    assert {name: each.stand.last_run for name, each in rows.items()} == {
        damaged: "unreadable",
        sound: "finished",
    }
    assert rows[damaged].summary.task == "hi"


def test_how_a_run_ended_is_known_though_an_entry_before_it_is_damaged(store: str, tmp_path: Path):
    made(store, runs=16, fails=True)
    with contextlib.closing(sqlite3.connect(tmp_path / "pods.db")) as db, db:
        db.execute("UPDATE entries SET n = 'three' WHERE n = 3")
    with Reading(store) as reading:
        [session] = listed(reading.sessions(), reading)
    assert session.stand.last_run == "failed"


#: What may happen to a row of the last ones of a session, or to a line of its file.
ROW_DAMAGE = (
    "UPDATE entries SET body = 7",
    "UPDATE entries SET body = replace(body, 'Run', 'Fun')",
    "UPDATE entries SET hash = 'x'",
    "UPDATE entries SET n = 'n' || n",
    "UPDATE entries SET session = 77",
    "DELETE FROM entries",
)
LINE_DAMAGE = (
    lambda line: b"garbage\n",
    lambda line: line[:20] + b"\n" + line[20:],
    lambda line: line.replace(b"Run", b"Fun"),
    lambda line: line + line,
    lambda line: b"",
)


@pytest.mark.parametrize("damage", ROW_DAMAGE)
def test_a_damaged_row_never_has_an_earlier_run_taken_for_the_last(store: str, tmp_path: Path, damage: str):
    made(store, runs=3, fails=True)
    with contextlib.closing(sqlite3.connect(tmp_path / "pods.db")) as db:
        # But the last one, and the one by which it is found: without those the session ends before.
        found_by = "SELECT max(id) FROM entries WHERE follows = 0"
        *rows, _ = [row for (row,) in db.execute(f"SELECT id FROM entries WHERE id <> ({found_by})")]
        for row in rows:
            with db:
                db.execute("CREATE TEMP TABLE sound AS SELECT * FROM entries")
                db.execute(f"{damage} WHERE id = ?", (row,))
            assert last_runs(store) <= {"failed", "unreadable"}, row
            with db:
                db.execute("DELETE FROM entries")
                db.execute("INSERT INTO entries SELECT * FROM sound")
                db.execute("DROP TABLE sound")
    assert last_runs(store) == {"failed"}


@pytest.mark.parametrize("damage", LINE_DAMAGE)
def test_a_damaged_line_never_has_an_earlier_run_taken_for_the_last(tmp_path: Path, damage):
    store = f"jsonl:{tmp_path / 'pods'}"
    made(store, runs=3, fails=True)
    [path] = (tmp_path / "pods").glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    for at in range(1, len(lines) - 1):
        path.write_bytes(b"".join([*lines[:at], damage(lines[at]), *lines[at + 1 :]]))
        assert last_runs(store) <= {"failed", "unreadable"}, at


def last_runs(store: str) -> set[str]:
    """How the last run of the only session ended, by all entries and by the last ones."""
    with Reading(store) as reading:
        [session] = listed(reading.sessions(), reading)
        return {session.stand.last_run, stand_of(session.info, reading).last_run}


def test_a_session_that_is_deleted_while_others_are_listed_is_left_out(store: str):
    [gone], [left] = made(store), made(store)
    with Reading(store) as reading, contextlib.closing(SQLiteStore(store.partition(":")[2])) as other:
        sessions = reading.sessions()
        other.delete(gone)
        assert [each.info.session_id for each in listed(sessions, reading)] == [left]


def test_a_session_without_a_sound_beginning_is_an_error_that_names_it(store: str, tmp_path: Path):
    [session] = made(store)
    change_entry(tmp_path / "pods.db", 1, b'{"type":', b'{"typ\xff:')
    with Reading(store) as reading:
        with pytest.raises(SessionCorrupt, match=f"session {session} is damaged at entry 1"):
            reading.manifest(session)
        assert stand_of(reading.info(session), reading).last_run == "finished"


@pytest.mark.parametrize("name", ["caf\u00e9", "cafe\u0301"])
def test_sessions_of_a_pod_that_an_older_version_named_otherwise_are_listed_beside_its_new_ones(
    store: str, name: str
):
    with contextlib.closing(SQLiteStore(store.partition(":")[2])) as opened:
        for session, pod in ("s", "cafe\u0301"), ("t", "caf\u00e9"), ("u", "cafe"):
            make(opened, session, "a", pod=pod, claim=False)
        with Reading(store) as reading:
            listed = reading.sessions(name)
            assert {each.session_id for each in listed} == {"s", "t"}
            assert listed == sorted(listed, key=lambda info: info.updated_at, reverse=True)
            assert reading.sessions(name, limit=1) == listed[:1]
