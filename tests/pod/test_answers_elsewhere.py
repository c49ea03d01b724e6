"""Answers to approvals that another process gives: a store of its own is all that it shares with the pod."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from store_kit import KINDS, AwaitedStore

from actors.llm.scripted import Reply, ScriptedClient, call, say
from actors.pod.approvals.answer_watch import AnswerWatch
from actors.pod.approvals.find import open_requests, resolution
from actors.pod.handle import Pod
from actors.runtime.user_folders import state_path
from actors.sessions.answer_token import AnswerToken, answer_token
from actors.sessions.answers import wait
from actors.sessions.chain import chained
from actors.sessions.memory.store import MemoryStore
from actors.sessions.sqlite.store import SQLiteStore
from actors.sessions.store import SessionStore
from actors.sessions.urls import open_store
from actors.system import PodSystem
from actors.tools.base import ToolContext, tool
from protocol.approval import ApprovalAnswer
from protocol.errors import AlreadyResolved, StoreError
from protocol.events import Alert, ApprovalRequested, ApprovalResolved, RunStart
from protocol.items import ToolResult
from protocol.manifest import PodManifest

RULES = [
    {"tool": "pay", "policy": "deny", "match": {"to": "mallory"}},
    {"tool": "pay", "policy": "ask"},
]
ASKS = PodManifest.of(name="p", approval=RULES)


class Place:
    """A store on disk, a pod in it, and another process's view of the same store."""

    def __init__(self, open_store: Any) -> None:
        self._open = open_store
        self.elsewhere: SessionStore = open_store()
        self.ran: list[str] = []
        self.pod: Pod

    @contextlib.asynccontextmanager
    async def system(self) -> AsyncIterator[PodSystem]:
        """A system, as one process after the other has."""
        store = self._open()
        async with asyncio.timeout(30), PodSystem(store) as system:
            yield system
        store.close()

    async def spawn(
        self, system: PodSystem, *replies: Reply, manifest: PodManifest = ASKS, **options: Any
    ) -> Pod:
        @tool
        async def pay(to: str) -> str:
            self.ran.append(to)
            return f"paid {to}"

        client = ScriptedClient([*replies])
        self.pod = await system.spawn(manifest, client=client, tools=[pay], **options)
        return self.pod

    async def ask(self, system: PodSystem, run: Any = None) -> ApprovalRequested:
        """Start a run, and wait until its call is asked for."""
        with system.subscribe(kinds=ApprovalRequested) as questions:
            self.run = self.pod.run("go") if run is None else run()
            event = await anext(questions)
        assert isinstance(event, ApprovalRequested)
        return event

    def answer(self, request: ApprovalRequested, *, approved: bool = True, **said: Any) -> bool:
        answer = ApprovalAnswer(request.approval_id, request.session_id, approved=approved, at=1.0, **said)
        return self.put(answer_token().sign(answer))

    def put(self, answer: ApprovalAnswer) -> bool:
        kept = self.elsewhere.put_answer(answer)
        assert isinstance(kept, bool)
        return kept

    async def open(self) -> list[str]:
        """The calls that wait, as another process sees them."""
        found: list[str] = []
        sessions = self.elsewhere.sessions()
        assert isinstance(sessions, list)
        for info in sessions:
            found += [each.approval_id for each in await open_requests(self.elsewhere, info)]
        return found

    async def results(self) -> list[str]:
        return [item.text for item in await self.pod.history() if isinstance(item, ToolResult)]


@pytest.fixture(params=["sqlite-process", "jsonl-process"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with contextlib.ExitStack() as opened:

        def open_store() -> SessionStore:
            store = KINDS[request.param](tmp_path)
            opened.callback(store.close)
            return store

        yield Place(open_store)


def pay(to: str) -> Reply:
    return call("pay", {"to": to})


async def test_a_pod_that_waits_goes_on_with_an_answer_of_another_process(place: Place) -> None:
    async with place.system() as system:
        await place.spawn(system, pay("ann"), pay("bob"), say("done"))
        first = await place.ask(system)
        assert await place.open() == [first.approval_id]
        with system.subscribe(kinds=ApprovalRequested) as questions:
            assert place.answer(first, note="she waits")
            second = await anext(questions)
        assert isinstance(second, ApprovalRequested)
        place.answer(second, approved=False, note="not him")
        assert (await place.run).text == "done"
        assert await place.results() == [
            "paid ann\nA person says: she waits",
            "pay was not run: a person denied it: not him",
        ]
        assert await place.open() == []


async def test_of_all_processes_the_first_answer_holds(place: Place) -> None:
    async with place.system() as system:
        await place.spawn(system, pay("ann"), pay("bob"), say("done"))
        first = await place.ask(system)
        place.answer(first, approved=False)
        with system.subscribe(kinds=ApprovalRequested) as questions:
            with pytest.raises(AlreadyResolved):
                await place.pod.approve(first.approval_id)
            second = await anext(questions)
        assert isinstance(second, ApprovalRequested)
        await place.pod.approve(second.approval_id)
        assert not place.answer(second, approved=False)
        await place.run
        assert place.ran == ["bob"]


async def test_an_answer_to_a_pod_that_is_paused_or_gone_is_taken_when_it_goes_on(place: Place) -> None:
    async with place.system() as system:
        await place.spawn(system, pay("ann"))
        request = await place.ask(system)
        await place.pod.pause()
        assert await place.open() == [request.approval_id]
        place.answer(request)
    async with place.system() as system:
        await place.spawn(system, say("done"), resume=request.session_id)
        assert (await place.pod.resume()).text == "done"
    assert place.ran == ["ann"]


async def test_other_arguments_and_always_hold_and_what_rules_deny_is_not_run(place: Place) -> None:
    async with place.system() as system:
        await place.spawn(system, pay("ann"), pay("cid"), pay("bob"), pay("bob"), say("done"))
        request = await place.ask(system)
        for said in (
            {"arguments": {"to": "cid"}, "always": True},
            {"arguments": {"to": "mallory"}},
            {"arguments": {}},
        ):
            with system.subscribe(kinds=ApprovalRequested) as questions:
                place.answer(request, **said)
                if said["arguments"]:
                    request = await anext(questions)  # type: ignore[assignment]
        await place.run
        assert place.ran == ["cid", "cid"]
        published = await place.results()
        assert "A person changed the arguments" in published[0]
        assert "denied with these arguments (the rule deny 'pay'" in published[2]
        assert "cannot be run" in published[3]


async def test_a_rule_that_denies_wins_over_an_answer_of_another_process(place: Place) -> None:
    async with place.system() as system:
        await place.spawn(system, pay("ann"))
        request = await place.ask(system)
        await place.pod.pause()
    place.answer(request, always=True)
    stricter = PodManifest.of(name="p", approval=[{"tool": "pay", "policy": "deny"}])
    async with place.system() as system:
        await place.spawn(system, say("done"), manifest=stricter, resume=request.session_id)
        await place.pod.resume()
        assert "denied" in (await place.results())[0]
    assert place.ran == []


async def test_an_answer_holds_in_its_session_and_not_in_a_fork(place: Place) -> None:
    async with place.system() as system:
        await place.spawn(system, pay("ann"))
        request = await place.ask(system)
        fork = await place.pod.fork()
        await place.spawn(system, pay("ann"), say("forked"), resume=fork, name="fork")
        asked = await place.ask(system)
        assert asked.session_id == fork
        other = ApprovalAnswer(request.approval_id, fork, approved=True, at=1.0)
        assert place.elsewhere.put_answer(other)
        assert place.answer(asked, approved=False)
        assert (await place.run).text == "forked"
        assert place.ran == []
        assert await place.open() == [request.approval_id]


async def test_what_is_not_wanted_any_more_is_reported_to_who_answers_late(place: Place) -> None:
    async with place.system() as system:
        await place.spawn(system, pay("ann"))
        request = await place.ask(system)
        info = place.elsewhere.info(request.session_id)
        assert not asyncio.isfuture(info)
        assert await resolution(place.elsewhere, request, info) is None  # type: ignore[arg-type]
        await place.pod.cancel()
        found = await resolution(place.elsewhere, request, info)  # type: ignore[arg-type]
        assert isinstance(found, ApprovalResolved)
        assert (found.by, found.approved) == ("run", False)
        assert await place.open() == []


async def test_a_store_whose_driver_fails_while_answers_are_looked_for_is_looked_into_again(
    tmp_path: Path,
) -> None:
    class Failing(AwaitedStore):
        failures = 2

        async def answers_since(self, mark: object) -> tuple[object, list[ApprovalAnswer]]:
            if mark is not None and self.failures:
                self.failures -= 1
                raise ConnectionResetError("the server went away")
            return await super().answers_since(mark)

    with (
        contextlib.closing(SQLiteStore(tmp_path / "pods.db")) as store,
        contextlib.closing(SQLiteStore(tmp_path / "pods.db")) as elsewhere,
    ):
        place = Place(lambda: elsewhere)
        async with asyncio.timeout(30), PodSystem(Failing(store)) as system:
            await place.spawn(system, pay("ann"), say("done"))
            request = await place.ask(system)
            assert place.answer(request)
            assert (await place.run).text == "done"
    assert place.ran == ["ann"]


async def test_an_answer_that_comes_while_two_pods_begin_to_wait_reaches_them(tmp_path: Path) -> None:
    asked, answered = asyncio.Semaphore(0), asyncio.Semaphore(0)

    class Slow(AwaitedStore):
        async def answers_since(self, mark: object) -> tuple[object, list[ApprovalAnswer]]:
            if mark is None:
                asked.release()
                await answered.acquire()
            return await super().answers_since(mark)

    with contextlib.closing(SQLiteStore(tmp_path / "pods.db")) as store:
        watch, taken = AnswerWatch(Slow(store)), asyncio.Queue[ApprovalAnswer]()
        async with asyncio.timeout(30):
            begins = [asyncio.create_task(watch.listen(name, taken.put_nowait)) for name in "ab"]
            for _ in begins:
                await asked.acquire()
            answered.release()
            await asyncio.wait(begins, return_when=asyncio.FIRST_COMPLETED)
            answer = ApprovalAnswer("question", "a", approved=True, at=1.0)
            store.put_answer(answer)
            answered.release()
            await asyncio.wait(begins)
            assert await taken.get() == answer
            for name in "ab":
                watch.stop_listening(name)


async def test_an_answer_allows_no_later_call_in_a_program_that_seeds_its_random_numbers(
    place: Place,
) -> None:
    ids, runs, sessions = set[str](), set[str | None](), set[str]()
    for life in range(2):
        async with place.system() as system:
            random.seed(42)  # as a program does that is to do the same each time
            other = await system.spawn(PodManifest.of(name="other"), client=ScriptedClient([]))
            sessions.add((await other.describe()).session_id)
            random.seed(42)
            await place.spawn(system, pay("ann" if life == 0 else "bob"), say("done"), session="one")
            request = await place.ask(system)
            ids.add(request.approval_id)
            runs.add(request.run_id)
            assert await place.open() == [request.approval_id]
            await (place.pod.approve if life == 0 else place.pod.deny)(request.approval_id)
            assert (await place.run).text == "done"
    assert place.ran == ["ann"]
    assert (len(ids), len(runs), len(sessions)) == (2, 2, 2)


def test_answers_are_found_in_a_file_that_was_made_anew_under_an_old_number(tmp_path: Path) -> None:
    with contextlib.closing(open_store(f"jsonl:{tmp_path}/pods")) as store:
        for session in "abc":
            assert wait(store.put_answer(ApprovalAnswer(f"of-{session}", session, approved=True, at=1.0)))
        mark, _ = wait(store.answers_since(None))
        (file,) = tmp_path.rglob("answers.jsonl")
        kept = file.read_bytes().splitlines(keepends=True)[2]
        file.write_bytes(kept)  # as another process leaves it that deletes sessions
        new = ApprovalAnswer("new", "w", approved=True, at=2.0)
        assert wait(store.put_answer(new))
        mark, found = wait(store.answers_since(mark))
        assert found[-1] == new
        assert wait(store.answers_since(mark)) == (mark, [])
        with file.open("ab") as half:
            half.write(b'{"approval_id":"hal')
        at_half, _ = wait(store.answers_since(None))
        last = ApprovalAnswer("last", "w", approved=True, at=3.0)
        assert wait(store.put_answer(last))
        for each in mark, at_half:
            assert wait(store.answers_since(each))[1] == [last]


def test_answers_are_found_in_a_database_that_an_older_one_was_put_in_the_place_of(tmp_path: Path) -> None:
    path = tmp_path / "pods.db"
    with contextlib.closing(open_store(f"sqlite:{path}")) as store:
        assert wait(store.put_answer(ApprovalAnswer("first", "s", approved=True, at=1.0)))
    backup = path.read_bytes()
    with contextlib.closing(open_store(f"sqlite:{path}")) as store:
        for number in range(3):
            assert wait(store.put_answer(ApprovalAnswer(str(number), "s", approved=True, at=1.0)))
        mark, _ = wait(store.answers_since(None))
    path.write_bytes(backup)
    with contextlib.closing(open_store(f"sqlite:{path}")) as store:
        new = ApprovalAnswer("new", "w", approved=True, at=2.0)
        assert wait(store.put_answer(new))
        mark, found = wait(store.answers_since(mark))
        assert found[-1] == new
        assert wait(store.answers_since(mark)) == (mark, [])


@pytest.mark.parametrize("kind", ["sqlite", "jsonl"])
def test_answers_are_found_once_though_one_was_refused_behind_them(tmp_path: Path, kind: str) -> None:
    with contextlib.closing(open_store(f"{kind}:{tmp_path}/pods")) as store:
        mark, _ = wait(store.answers_since(None))
        first = ApprovalAnswer("first", "s", approved=True, at=1.0)
        assert wait(store.put_answer(first))
        assert not wait(store.put_answer(first))
        mark, found = wait(store.answers_since(mark))
        assert found == [first]
        assert wait(store.answers_since(mark))[1] == []
        last = ApprovalAnswer("last", "s", approved=True, at=1.0)
        assert wait(store.put_answer(last))
        assert wait(store.answers_since(mark))[1] == [last]


@pytest.mark.parametrize("kind", ["sqlite", "jsonl"])
def test_an_answer_that_somebody_has_written_too_deep_hides_no_other(tmp_path: Path, kind: str) -> None:
    deep = b'{"approval_id":"a","session_id":"s","approved":true,"at":1.0,"arguments":{"x":%b}}'
    deep %= b"[" * 50_000 + b"]" * 50_000
    place = tmp_path / "pods"
    with contextlib.closing(open_store(f"{kind}:{place}")) as store:
        _, none = wait(store.answers_since(None))
        assert none == []
        first = ApprovalAnswer("b", "s", approved=False, at=1.0)
        assert wait(store.put_answer(first))
        mark, _ = wait(store.answers_since(None))
        if kind == "sqlite":
            with contextlib.closing(sqlite3.connect(place)) as db, db:
                db.execute(
                    "INSERT INTO approval_answers (approval, session, body) VALUES ('a', 's', ?)", [deep]
                )
        else:
            (file,) = place.rglob("answers.jsonl")
            file.write_bytes(file.read_bytes() + deep + b"\n")
        last = ApprovalAnswer("c", "s", approved=False, at=2.0)
        assert wait(store.put_answer(last))
        assert wait(store.answers_since(mark))[1] == [last]
        assert wait(store.answers(["a", "b", "c"])) == [first, last]


@pytest.mark.slow
async def test_a_store_that_cannot_be_read_for_a_moment_ends_no_run_that_waits(tmp_path: Path) -> None:
    class Failing(AwaitedStore):
        failures = 2

        async def answers_since(self, mark: object) -> tuple[object, list[ApprovalAnswer]]:
            if self.failures:
                self.failures -= 1
                raise StoreError("not now")
            return await super().answers_since(mark)

    with (
        contextlib.closing(SQLiteStore(tmp_path / "pods.db")) as store,
        contextlib.closing(SQLiteStore(tmp_path / "pods.db")) as elsewhere,
    ):
        place = Place(lambda: elsewhere)
        async with asyncio.timeout(30), PodSystem(Failing(store)) as system:
            await place.spawn(system, pay("ann"), pay("bob"), say("done"))
            with system.subscribe(kinds=ApprovalRequested) as questions:
                run = place.pod.run("go")
                place.answer(await anext(questions))  # type: ignore[arg-type]
                request = await anext(questions)
                assert isinstance(request, ApprovalRequested)
            await place.pod.approve(request.approval_id)
            assert (await run).text == "done"
    assert place.ran == ["ann", "bob"]


async def test_a_pod_that_asks_nobody_asks_the_store_nothing(tmp_path: Path) -> None:
    class Counting(SQLiteStore):
        asked = 0

        def answers_since(self, mark: object) -> Any:
            self.asked += 1
            return super().answers_since(mark)

        def answers(self, approval_ids: Any) -> Any:
            self.asked += 1
            return super().answers(approval_ids)

    store = Counting(tmp_path / "pods.db")
    async with PodSystem(store) as system:
        place = Place(lambda: store)
        await place.spawn(system, say("one"))
        await place.pod.run("go")
    assert store.asked == 0
    store.close()


# -- answers that do not come in time --------------------------------------------------------------


def in_time(seconds: float) -> PodManifest:
    return PodManifest.of(name="p", approval=RULES, approvals={"timeout": seconds})


def pass_end(request: ApprovalRequested) -> None:
    """Stay until the call may be answered no more: the clock itself is what is waited for."""
    while time.time() <= request.ends_at:
        pass


async def test_what_nobody_answers_in_time_is_denied_with_words(place: Place) -> None:
    async with place.system() as system:
        await place.spawn(system, pay("ann") + pay("bob"), say("done"), manifest=in_time(0.05))
        with system.subscribe(kinds=ApprovalResolved) as resolved:
            request = await place.ask(system)
            assert (await place.run).text == "done"
            events = resolved.drain()
        assert [(event.by, event.approved) for event in events] == [("timeout", False)] * 2  # type: ignore[union-attr]
        words = "pay was not run: it needs a person's approval, but nobody answered within 0.05 s ([approvals] timeout)"
        assert await place.results() == [words, words]
        assert not place.answer(request)


async def test_an_answer_in_time_holds(place: Place) -> None:
    async with place.system() as system:
        await place.spawn(system, pay("ann"), say("done"), manifest=in_time(3600))
        place.answer(await place.ask(system))
        await place.run
    assert place.ran == ["ann"]


@pytest.mark.parametrize("answered", ["here", "elsewhere", "not"])
async def test_time_counts_from_the_question_also_across_a_pause_and_a_restart(
    place: Place, answered: str
) -> None:
    async with place.system() as system:
        await place.spawn(system, pay("ann"), manifest=in_time(0.3))
        request = await place.ask(system)
        await place.pod.pause()
        pass_end(request)
        assert await system.approvals() == []
    if answered == "elsewhere":
        late = ApprovalAnswer(request.approval_id, request.session_id, approved=True, at=time.time())
        assert place.elsewhere.put_answer(late)
    async with place.system() as system:
        await place.spawn(system, say("done"), resume=request.session_id)  # of a manifest without a time
        if answered == "here":
            with pytest.raises(AlreadyResolved, match="in time"):
                await place.pod.approve(request.approval_id)
        assert (await place.pod.resume()).text == "done"
        assert "nobody answered within 0.3 s" in (await place.results())[0]
    assert place.ran == []


async def test_where_no_other_process_can_answer_time_ends_as_well() -> None:
    place = Place(MemoryStore)
    async with place.system() as system:
        await place.spawn(system, pay("ann"), say("done"), manifest=in_time(0.05))
        await place.ask(system)
        assert (await place.run).text == "done"
    assert place.ran == []


# -- answers that prove nothing ----------------------------------------------------------------------


@pytest.mark.parametrize("forged", ["no proof", "another's", "of another call"])
async def test_an_answer_that_proves_no_token_approves_nothing(place: Place, forged: str) -> None:
    async with place.system() as system:
        await place.spawn(system, pay("ann"), say("done"))
        with system.subscribe(kinds=(ApprovalResolved, Alert)) as events:
            asked = await place.ask(system)
            answer = ApprovalAnswer(asked.approval_id, asked.session_id, approved=True, at=1.0)
            if forged == "another's":
                answer = AnswerToken(b"guessed").sign(answer)
            elif forged == "of another call":
                proof = answer_token().sign(structs.replace(answer, approval_id="0" * 16)).proof
                answer = structs.replace(answer, proof=proof)
            assert place.put(answer)
            assert (await place.run).text == "done"
            found = {type(event): event for event in events.drain()}
        assert place.ran == []
        resolved, alert = found[ApprovalResolved], found[Alert]
        assert isinstance(resolved, ApprovalResolved)
        assert (resolved.approved, resolved.by) == (False, "unproved")
        assert asked.approval_id in str(alert)
        assert "carries no valid proof" in (await place.results())[0]


async def test_the_next_question_wants_the_token_that_is_there_by_then(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    async with place.system() as system:
        await place.spawn(system, pay("ann"), say("done"), pay("bob"), say("done"))
        first = await place.ask(system)
        await place.pod.approve(first.approval_id)
        await place.run
        (state_path() / "approval-token").unlink()
        second = await place.ask(system)
        assert second.token != first.token
        place.answer(second)
        await place.run
    assert place.ran == ["ann", "bob"]


async def test_an_answer_without_proof_to_a_question_of_an_earlier_version_holds(place: Place) -> None:
    async with place.system() as system:
        await place.spawn(system, pay("ann"))
        asked = await place.ask(system)
    session_id = asked.session_id
    bodies = [each.body for each in wait(place.elsewhere.read(session_id))]
    old = [re.sub(rb',"token":"[0-9a-f]+"', b"", body) for body in bodies]
    assert old != bodies
    wait(place.elsewhere.delete(session_id))
    wait(place.elsewhere.create(session_id, "p", None, chained(old), claim=False))
    assert place.put(ApprovalAnswer(asked.approval_id, session_id, approved=True, at=1.0))
    async with place.system() as system:
        await place.spawn(system, resume=session_id)
        place.pod.resume()
        with system.subscribe(kinds=ApprovalResolved) as events:
            resolved = await anext(events)
        assert isinstance(resolved, ApprovalResolved)
        assert (resolved.approved, resolved.by) == (True, "person")


async def test_other_processes_see_what_waits_in_a_run_that_goes_on_after_a_pause(place: Place) -> None:
    async with place.system() as system:
        await place.spawn(system, pay("ann"))
        request = await place.ask(system)
    async with place.system() as system:
        await place.spawn(system, say("done"), resume=request.session_id)
        with system.subscribe(kinds=RunStart) as starts:
            run = place.pod.resume()
            await anext(starts)
        assert await place.open() == [request.approval_id]
        place.answer(request)
        assert (await run).text == "done"
    assert place.ran == ["ann"]


async def test_a_form_of_an_earlier_life_waits_for_nobody(place: Place) -> None:
    @tool
    async def ask_town(ctx: ToolContext) -> str:
        """Ask a person for a town."""
        assert ctx.ask_person is not None
        return str(await ctx.ask_person("which town?", {"type": "object", "properties": {}}))

    async with place.system() as system:
        client = ScriptedClient([call("ask_town", {})])
        pod = await system.spawn(ASKS, client=client, tools=[ask_town])
        with pod.subscribe(ApprovalRequested) as questions:
            pod.run("go")
            question = await anext(questions)
        assert isinstance(question, ApprovalRequested)
        assert await place.open() == [question.approval_id]
        entries = place.elsewhere.read(question.session_id)
        assert isinstance(entries, list)
    # As it stands where the process was killed, without the end of the question.
    crashed = MemoryStore()
    crashed.create(question.session_id, "p", None, entries)
    crashed.release(question.session_id)
    async with PodSystem(crashed) as system:
        await system.spawn(ASKS, client=ScriptedClient([]), tools=[ask_town], resume=question.session_id)
        (info,) = crashed.sessions()
        assert await open_requests(crashed, info) == ()
        assert await system.approvals() == []


class Till:
    """A source whose one tool is there once it is open."""

    name = "till"

    def __init__(self) -> None:
        self.ran: list[str] = []
        self._is_open = False

    async def open(self) -> None:
        await asyncio.sleep(0)
        self._is_open = True

    def tools(self) -> list[Any]:
        async def pay(to: str) -> str:
            self.ran.append(to)
            return f"paid {to}"

        return [pay] if self._is_open else []

    async def close(self) -> None:
        self._is_open = False


@pytest.mark.parametrize("mended", [None, {"to": "bob"}])
@pytest.mark.parametrize("answered", ["while nobody is there", "while it is paused", "while it waits"])
async def test_a_call_of_a_source_that_waited_runs_in_a_later_life_before_any_request(
    place: Place, mended: dict[str, Any] | None, answered: str
) -> None:
    till = Till()
    async with place.system() as system:
        place.pod = await system.spawn(ASKS, client=ScriptedClient([pay("ann")]), tools=[till])
        request = await place.ask(system)
    if answered == "while nobody is there":
        place.answer(request, arguments=mended)
    async with place.system() as system:
        client = ScriptedClient([say("done")])
        pod = await system.spawn(ASKS, client=client, tools=[till], resume=request.session_id)
        if answered == "while it is paused":
            await pod.approve(request.approval_id, arguments=mended)
        run = pod.resume()
        if answered == "while it waits":
            await pod.approve(request.approval_id, arguments=mended)
        assert (await run).text == "done"
    assert till.ran == [(mended or {"to": "ann"})["to"]]


async def test_an_answer_reaches_a_pod_that_is_taking_another_as_the_store_is_looked_at_for_one_that_waits(
    tmp_path: Path,
) -> None:
    """It was read from the store while its pod did not listen, and never again."""

    class Busy(AwaitedStore):
        def __init__(self, kept: SessionStore) -> None:
            super().__init__(kept)
            self.held = ""
            self.arrived, self.go_on = asyncio.Event(), asyncio.Event()
            self.seen: asyncio.Queue[str] = asyncio.Queue()

        async def append(self, session_id: str, *args: Any) -> None:
            if session_id == self.held:
                self.arrived.set()
                await self.go_on.wait()
            await super().append(session_id, *args)

        async def answers_since(self, mark: object) -> tuple[object, list[ApprovalAnswer]]:
            found = await super().answers_since(mark)
            for answer in found[1]:
                self.seen.put_nowait(answer.approval_id)
            return found

    place = Place(lambda: SQLiteStore(tmp_path / "pods.db"))
    with contextlib.closing(place.elsewhere), contextlib.closing(SQLiteStore(tmp_path / "pods.db")) as kept:
        store = Busy(kept)
        async with asyncio.timeout(30), PodSystem(store) as system:
            other = await place.spawn(system, pay("zoe"), manifest=PodManifest.of(name="q", approval=RULES))
            await place.ask(system)
            await place.spawn(system, pay("ann") + pay("bob"), say("done"))
            with system.subscribe(kinds=ApprovalRequested) as questions:
                run = place.pod.run("go")
                first, second = await anext(questions), await anext(questions)
            assert isinstance(first, ApprovalRequested)
            assert isinstance(second, ApprovalRequested)
            store.held = first.session_id
            place.answer(first)
            await store.arrived.wait()
            place.answer(second)
            while await store.seen.get() != second.approval_id:
                pass
            store.go_on.set()
            assert (await run).text == "done"
            assert sorted(place.ran) == ["ann", "bob"]
            await other.stop()
