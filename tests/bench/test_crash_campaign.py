"""The crash campaign itself: a short one finds nothing, and what is made wrong on purpose is found."""

import asyncio
import io
import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from actors.llm.scripted import ScriptedClient, call, say
from actors.memory.findings import Extracted
from actors.memory.staging import Staged, stage
from actors.sessions.chain import chained
from actors.sessions.memory.store import MemoryStore
from actors.sessions.store import SessionStore
from actors.system import PodSystem
from bench.__main__ import main
from bench.crash import campaign, faults, rounds, tables
from bench.crash.campaign import Finding, Outcome, Plan
from bench.crash.driver import Driver
from bench.crash.ends import unclaimed, unended
from bench.crash.examine import Examined, examine
from bench.crash.file_faults import Forked, LogDeleted, finish_copies
from bench.crash.player import Player, Toolkit
from bench.crash.reports import (
    Broke,
    Doing,
    Line,
    Listener,
    Made,
    Refused,
    Returned,
    Seen,
    Teller,
    digest,
)
from bench.crash.rounds import Aim, Round
from bench.crash.tally import Tally
from bench.crash.worker import Work, manifest, toolkit
from protocol.errors import StoreError
from protocol.events import CompactStart, Event, ExtractDone, RunStart
from protocol.wire import encode


@pytest.mark.slow
@pytest.mark.parametrize("store", faults.STORES)
def test_a_few_rounds_of_kills_and_failing_disks_find_nothing(store: str):
    reported: list[Round] = []
    fault = "eio" if store.startswith("jsonl") else "cut"
    plan = Plan((store,), rounds=2, fault_rounds=1, faults=(fault,), seed=11, jobs=1)
    outcome = campaign.run(plan, reported.append)
    assert outcome.findings == []
    kills = [each for each in reported if each.fault is None]
    assert [each.killed for each in kills] == [True, True]
    assert all(each.phases for each in kills)
    assert [each.fault for each in reported if each.fault is not None] == [fault]
    assert sum(each.reported for each in reported) > 0
    assert sum(each.examined.restored for each in reported) > 0


def test_the_same_seed_aims_at_the_same_moments():

    assert [Aim.taken(random.Random(3)) for _ in range(3)] == [Aim.taken(random.Random(3))] * 3


@pytest.fixture
def lived(tmp_path: Path) -> tuple[Work, list[Line]]:
    """A store in which one run made two calls, and what was reported of it."""
    work = Work("jsonl-process", tmp_path, "r1", "1")
    (tmp_path / "disk").mkdir()
    reported: list[Line] = []

    async def live() -> None:

        store = faults.open_store(work.store, tmp_path)
        with toolkit(work, random.Random(1), Teller(None), 0.0) as tools:
            assert isinstance(tools, Toolkit)
            client = ScriptedClient(
                [call("look", {"word": "a"}, id="1") + call("change", {"word": "b"}, id="2"), say("so it is")]
            )
            async with PodSystem(store) as system:
                with system.subscribe() as events:
                    pod = await system.spawn(manifest(1), client=client, tools=tools.tools())
                    result = await pod.run("go")
                    reported.append(Returned(result.session_id, result.run_id, result.outcome))
                    reported.extend(
                        Seen(event.session_id, event.seq, digest(encode(event)))
                        for event in events.drain()
                        if event.durable
                    )
        store.close()

    asyncio.run(live())
    return work, reported


def findings(work: Work, reported: list[Line]) -> list[str]:
    return examine(work, reported, run_on=False, torn=False).findings


def test_all_that_was_reported_is_found_and_the_session_goes_on(lived):
    work, reported = lived
    found = examine(work, reported, run_on=True, torn=False)
    assert found.findings == []
    assert (found.reported, found.tools, found.calls, found.sessions) == (len(reported) - 1, 2, 2, 1)
    assert (found.restored, found.resumed) == (1, 0)


def test_what_was_reported_and_is_not_there_is_found(lived):
    work, reported = lived
    received = next(line for line in reported if isinstance(line, Seen))
    session = received.session_id
    assert "lost: entry 999" in findings(work, [Seen(session, 999, "")])[0]
    assert "changed: entry" in findings(work, [Seen(session, received.seq, "other")])[0]
    assert "lost: the result" in findings(work, [Returned(session, "run", "finished")])[0]
    assert "lost: session" in findings(work, [Made("nowhere")])[0]


def test_the_end_of_a_run_that_was_reported_is_not_found_in_an_earlier_pause(lived):
    work, reported = lived
    (returned,) = (line for line in reported if isinstance(line, Returned))
    other = Returned(returned.session_id, returned.run_id, "paused")
    assert "lost: the result" in findings(work, [other])[0]


@pytest.mark.parametrize(
    ("line", "finding"),
    [("1\n", "twice"), ("3\n", "unlogged")],
    ids=["a call that ran twice", "one unlogged"],
)
def test_a_tool_that_ran_once_too_often_is_found(lived, line: str, finding: str):
    work, reported = lived
    with (work.folder / "calls").open("a") as calls:
        calls.write(line)
    assert [each.partition(":")[0] for each in findings(work, reported)] == [finding]


def test_a_result_without_its_tool_is_found(lived):
    work, reported = lived
    (work.folder / "calls").write_text("1\n")
    assert [each.partition(":")[0] for each in findings(work, reported)] == ["invented"]


def test_damage_and_half_written_batches_are_found(lived):
    work, reported = lived
    (file,) = (work.folder / "disk" / "store").glob("*.jsonl")
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"seq":')
    assert [each.partition(":")[0] for each in findings(work, reported)] == ["torn"]
    assert examine(work, reported, run_on=False, torn=True).findings == []
    file.write_bytes(whole.replace(b"so it is", b"so it be"))
    assert findings(work, reported)[0].startswith("broken")


def stored(work: Work, *make: Callable[[int], Event]) -> Iterator[SessionStore]:
    """The store of ``work``, with more events at the end of its only session."""
    store = faults.open_store(work.store, work.folder)
    (info,) = store.sessions()
    bodies = [encode(each(info.head.seq + 1 + number)) for number, each in enumerate(make)]
    store.append(info.session_id, info.head, chained(bodies, after=info.head))
    yield store
    store.close()


def test_what_was_begun_and_has_no_end_is_found(lived):
    work, reported = lived
    session = reported[-1].session_id
    common = {"pod": "p", "session_id": session, "at": 0.0}
    for store in stored(
        work,
        lambda seq: CompactStart(**common, seq=seq, reason="manual"),
        lambda seq: RunStart(**common, seq=seq, run_id="r"),
    ):
        found = list(unended(store, [session]))
    assert found == [f"no end: the compaction of {session}", f"no end: run r of {session}"]


def test_a_staged_file_that_no_log_speaks_of_is_found(lived):
    work, reported = lived
    session, memory = reported[-1].session_id, work.folder / "memory"
    (memory / "staging").mkdir(parents=True)
    for end in (1, 2):
        stage(memory / "staging", Staged(session, 0, end, Extracted()))
    done = {"pod": "p", "session_id": session, "at": 0.0, "pointer": 1, "staged": 1}
    for store in stored(work, lambda seq: ExtractDone(**done, seq=seq)):
        (found,) = unclaimed(store, memory)
    assert found.endswith(f"of {session}:0-2, which no ExtractDone tells of")


def test_a_store_that_a_forked_child_could_use_is_found():
    fault = Forked(random.Random(1))
    fault.store = MemoryStore()
    with pytest.raises(AssertionError, match="could use its parent's store"), fault:
        pass


def test_a_log_that_is_deleted_before_it_was_merged_is_found_to_have_lost_what_was_reported(tmp_path):
    def live(pipe: int) -> None:
        store = faults.open_store("sqlite-process", tmp_path)
        entries = chained([b'{"type":"Later","seq":1}'])
        store.create("s", "p", None, entries)
        Teller(pipe).tell(Seen("s", 1, digest(entries[0].body)))
        os.kill(os.getpid(), signal.SIGKILL)

    (tmp_path / "disk" / "store").mkdir(parents=True)
    (tmp_path / "calls").touch()
    listener = Listener()
    with rounds._fork(live, tmp_path / "errors") as (process, pipe):
        while data := os.read(pipe, 1 << 16):
            listener.feed(data)
        os.waitpid(process, 0)
    with LogDeleted(tmp_path, random.Random(1)) as fault:
        assert fault.hits
    work = Work("sqlite-process", tmp_path, "r1", "1", "log")
    assert "lost: entry 1 of s" in findings(work, listener.received)[0]


def test_damage_after_a_backup_came_is_found_and_what_was_reported_since_it_is_not_missed(lived):
    work, reported = lived
    swapped = msgspec.structs.replace(work, fault="swap")
    missed: list[Line] = [*reported, Seen(reported[-1].session_id, 999, "")]
    assert findings(work, missed)
    assert findings(swapped, missed) == []
    (file,) = (work.folder / "disk" / "store").glob("*.jsonl")
    file.write_bytes(file.read_bytes().replace(b"so it is", b"so it be"))
    assert findings(swapped, missed)[0].startswith("broken")


def test_a_line_that_was_cut_by_a_kill_was_not_reported():
    listener = Listener()
    lines = encode(Seen("s", 1, "x")) + b"\n" + encode(Doing("tool", 1, "p")) + b"\n" + encode(Made("t"))
    assert len(listener.feed(lines)) == 2
    assert listener.received == [Seen("s", 1, "x")]
    assert listener.phases == {"tool"}
    listener.feed(b"\n" + encode(Doing("tool", -1, "p")) + b"\n")
    assert listener.phases == {"idle"}
    assert listener.received[-1] == Made("t")


def test_a_process_that_falls_silent_before_the_moment_to_kill_it_is_found_to_be_stuck(monkeypatch):
    monkeypatch.setattr(rounds, "_PATIENCE", 0.1)
    reading, writing = os.pipe()
    os.write(writing, encode(Doing("tool", 1, "p")) + b"\n")
    assert rounds._listen(Listener(), reading, Aim("tool", 2, 0.0)), "the second tool never began"
    os.write(writing, encode(Doing("tool", 1, "p")) + b"\n")
    assert not rounds._listen(Listener(), reading, Aim("tool", 1, 0.0))
    assert not rounds._listen(Listener(), reading, Aim(None, 0, 0.01))
    os.close(writing)
    assert not rounds._listen(Listener(), reading, Aim("tool", 1, 0.0)), "it has ended"
    os.close(reading)


def test_a_compaction_that_the_store_refuses_without_a_fault_is_found(tmp_path):
    class Full(MemoryStore):
        def create(self, session_id, pod, parent, batch, *, claim=True):
            if parent is not None:
                raise StoreError("full")
            return super().create(session_id, pod, parent, batch, claim=claim)

    async def compacted(*, faults):
        reading, writing = os.pipe()
        client = Player("p", "m", random.Random(1), Teller(None), 0.0)
        async with PodSystem(Full()) as system:
            pod = await system.spawn(manifest(1), client=client)
            await pod.run("go")
            await Driver(pod, random.Random(1), Teller(writing), faults=faults)._compact()
        os.close(writing)
        listener = Listener()
        listener.feed(os.read(reading, 1 << 16))
        os.close(reading)
        return [type(line) for line in listener.received]

    assert asyncio.run(compacted(faults=False)) == [Broke]
    assert asyncio.run(compacted(faults=True)) == [Refused]


def test_a_finding_is_reported_with_where_to_look_and_how_to_do_it_again():
    tally = Tally("jsonl-power", "eio")
    found = Examined(findings=["lost: entry 3 of s"])
    tally.add(Round("jsonl-power", "eio", 5, 2, False, [], 7, 1, 3, 2, 6, 6, found))
    again = "python -m bench crash --store jsonl-power --seed 5 --rounds 0 --fault eio --fault-rounds 2"
    outcome = Outcome([tally], [Finding(found.findings, "/folder", again)], ["full"])
    console = Console(file=io.StringIO(), record=True, width=200)
    tables.show(outcome, 2.0, console)
    text = console.export_text()
    assert "1 rounds in 2 seconds (0.5 a second), 1 findings" in text
    assert "lost: entry 3 of s" in text
    assert "/folder" in text
    assert again in text
    assert "left out: full" in text
    assert json.loads(tally.line())["alive"] == 6


def test_the_command_prints_what_it_counted_and_ends_with_0(capsys: pytest.CaptureFixture[str]):
    code = main(["crash", "--rounds", "1", "--fault-rounds", "0", "--store", "sqlite-process", "--json"])
    (line,) = capsys.readouterr().out.splitlines()
    tally = json.loads(line)
    assert (code, tally["rounds"], tally["kills"], tally["findings"]) == (0, 1, 1, [])


def test_a_backup_that_a_killed_process_was_copying_is_renamed_into_its_place(tmp_path: Path) -> None:
    for name in ("backup", "disk/store"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "backup" / "pods.db").write_bytes(b"whole")
    (tmp_path / "backup" / "pods.db.copying").touch()
    (tmp_path / "disk" / "store" / "pods.db").write_bytes(b"wh")
    finish_copies(tmp_path)
    finish_copies(tmp_path)
    assert (tmp_path / "disk" / "store" / "pods.db").read_bytes() == b"whole"
    assert not list((tmp_path / "backup").iterdir())


def test_a_note_of_a_copy_is_dropped_where_a_process_was_killed_as_it_cleared_the_backup_away(
    tmp_path: Path,
) -> None:
    for name in ("backup", "disk/store"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "backup" / "one.jsonl.copying").touch()
    (tmp_path / "disk" / "store" / "one.jsonl").write_bytes(b"whole")
    finish_copies(tmp_path)
    assert (tmp_path / "disk" / "store" / "one.jsonl").read_bytes() == b"whole"
    assert not list((tmp_path / "backup").iterdir())
