"""A run that waits for a person's word leaves its history to the store, and nobody who answers can see that."""

from __future__ import annotations

import asyncio
import contextlib
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pod_stage import check_pairs
from store_kit import AwaitedStore

from actors.llm.base import Block, Request
from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.approvals.find import open_requests
from actors.pod.handle import Pod
from actors.pod.local import actor_of
from actors.sessions.answer_token import answer_token
from actors.sessions.memory.store import MemoryStore
from actors.sessions.sqlite.store import SQLiteStore
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.approval import ApprovalAnswer
from protocol.errors import PodStopped, StoreError
from protocol.events import ApprovalRequested, RunEnd, StateChanged
from protocol.items import ToolResult, UserItem
from protocol.lifecycle import PodState
from protocol.manifest import PodManifest

ASKS = PodManifest.of(name="p", approval=[{"tool": "pay", "policy": "ask"}])
LONG = "a long story " * 5_000


class Till:
    """A tool that is asked for, and what it did."""

    def __init__(self) -> None:
        self.paid: list[str] = []

    def tools(self) -> list[Any]:
        @tool
        async def pay(to: str) -> str:
            self.paid.append(to)
            return f"paid {to}"

        return [pay]


class Asked:
    """A pod whose run waits with nothing of its history in memory."""

    def __init__(self, pod: Pod, run: Any, request: ApprovalRequested, till: Till) -> None:
        self.pod, self.run, self.request, self.till = pod, run, request, till

    async def passive(self) -> None:
        """Have it give back its history."""
        assert await self.pod.passivate()
        described = await self.pod.describe()
        assert (described.passive, described.state) == (True, PodState.WAITING)
        assert not actor_of(self.pod).journal.head.items

    async def check(self, *results: str) -> None:
        """What it has in its history at the end."""
        history = await self.pod.history()
        check_pairs(history)
        assert [item.text for item in history if item.text.startswith(("paid", "pay was"))] == [*results]
        assert history[0] == UserItem.of(LONG)


@contextlib.asynccontextmanager
async def asked(
    store: Any = "memory:", *, manifest: PodManifest = ASKS, goes_on: bool = True
) -> AsyncIterator[Asked]:
    till = Till()
    client = ScriptedClient([call("pay", {"to": "ann"}), *([say("done")] if goes_on else [])])
    async with asyncio.timeout(30), PodSystem(store) as system:
        pod = await system.spawn(manifest, client=client, tools=till.tools())
        with pod.subscribe(ApprovalRequested) as questions:
            run = pod.run(LONG)
            request = await anext(questions)
            assert isinstance(request, ApprovalRequested)
            await pod.describe()  # it waits by now
            yield Asked(pod, run, request, till)


@pytest.fixture(params=["memory", "sqlite", "awaited"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    made = {
        "memory": MemoryStore,
        "awaited": AwaitedStore,
        "sqlite": lambda: SQLiteStore(tmp_path / "pods.db"),
    }
    store = made[request.param]()
    yield store
    if request.param == "sqlite":
        store.close()


async def until_waiting(pod: Pod) -> None:
    with pod.subscribe(StateChanged) as changes:
        if (await pod.describe()).state is not PodState.WAITING:
            async for change in changes:
                if isinstance(change, StateChanged) and change.new is PodState.WAITING:
                    return


async def test_an_approval_has_it_come_back_and_go_on(store: Any) -> None:
    async with asked(store) as waiting:
        await until_waiting(waiting.pod)
        await waiting.passive()
        await waiting.pod.approve(waiting.request.approval_id)
        assert (await waiting.run).text == "done"
        await waiting.check("paid ann")


async def test_so_does_a_denial(store: Any) -> None:
    async with asked(store) as waiting:
        await until_waiting(waiting.pod)
        await waiting.passive()
        await waiting.pod.deny(waiting.request.approval_id, note="no")
        assert (await waiting.run).text == "done"
        await waiting.check("pay was not run: a person denied it: no")


async def test_an_answer_of_another_process_has_it_come_back(tmp_path: Path) -> None:
    async with asked(f"sqlite:{tmp_path / 'pods.db'}") as waiting:
        await until_waiting(waiting.pod)
        await waiting.passive()
        asked_for = waiting.request
        elsewhere = SQLiteStore(tmp_path / "pods.db")
        answer = ApprovalAnswer(asked_for.approval_id, asked_for.session_id, approved=True, at=1.0)
        assert elsewhere.put_answer(answer_token().sign(answer))
        elsewhere.close()
        assert (await waiting.run).text == "done"
        await waiting.check("paid ann")


async def test_time_that_runs_out_denies_the_call(store: Any) -> None:
    manifest = ASKS.replace(approvals=type(ASKS.approvals)(timeout=0.2))
    async with asked(store, manifest=manifest) as waiting:
        await until_waiting(waiting.pod)
        await waiting.passive()
        assert (await waiting.run).text == "done"
        assert "nobody answered within" in (await waiting.pod.history())[2].text


@pytest.mark.parametrize("words", ["steer", "notify"])
async def test_words_find_the_history_there(store: Any, words: str) -> None:
    async with asked(store) as waiting:
        await until_waiting(waiting.pod)
        await waiting.passive()
        said = getattr(waiting.pod, words)("do it not")
        if words == "notify":
            await waiting.pod.approve(waiting.request.approval_id)
        assert (await waiting.run).text == "done"
        await said
        check_pairs(await waiting.pod.history())
        assert waiting.till.paid == ([] if words == "steer" else ["ann"])


async def test_a_pause_leaves_the_question_open_and_a_resume_goes_on_with_it(store: Any) -> None:
    async with asked(store) as waiting:
        await until_waiting(waiting.pod)
        await waiting.passive()
        await waiting.pod.pause()
        assert (await waiting.run).outcome == "paused"
        run = waiting.pod.resume()
        await until_waiting(waiting.pod)
        await waiting.passive()
        await waiting.pod.approve(waiting.request.approval_id)
        assert (await run).text == "done"
        await waiting.check("paid ann")


@pytest.mark.parametrize("ends", ["cancel", "stop"])
async def test_a_run_that_is_ended_meanwhile_has_its_end(store: Any, ends: str) -> None:
    async with asked(store, goes_on=False) as waiting:
        await until_waiting(waiting.pod)
        await waiting.passive()
        with waiting.pod.subscribe(RunEnd) as ended:
            await getattr(waiting.pod, ends)()
            (end,) = ended.drain()
        assert isinstance(end, RunEnd)
        assert end.outcome == (await waiting.run).outcome == "cancelled"
        assert waiting.till.paid == []


async def test_a_branch_is_made_of_the_history_that_is_in_the_store(store: Any) -> None:
    async with asked(store) as waiting:
        await until_waiting(waiting.pod)
        await waiting.passive()
        await waiting.pod.fork()
        await waiting.pod.approve(waiting.request.approval_id)
        assert (await waiting.run).text == "done"
        await waiting.check("paid ann")


class _Failing(MemoryStore):
    """A store whose reads fail as often as they are to."""

    fails = 0

    def read(self, *args: Any, **options: Any) -> Any:
        if self.fails:
            self.fails -= 1
            raise StoreError("the disk is away")
        return super().read(*args, **options)


async def test_a_history_that_cannot_be_read_for_a_moment_is_read_again() -> None:
    store = _Failing()
    async with asked(store, goes_on=False) as waiting:
        await until_waiting(waiting.pod)
        await waiting.passive()
        store.fails = 1
        with pytest.raises(StoreError):
            await waiting.pod.approve(waiting.request.approval_id)
        store.fails = 1
        await waiting.pod.pause()  # by that alone the run goes on, and waits for its history
        assert (await waiting.run).outcome == "paused"
        assert await waiting.pod.cancel() is None


async def test_a_pod_that_ends_while_its_history_cannot_be_read_leaves_the_question_open() -> None:
    store = _Failing()
    async with asked(store, goes_on=False) as waiting:
        await until_waiting(waiting.pod)
        await waiting.passive()
        store.fails = 1_000_000
        await waiting.pod.stop()
        with pytest.raises(PodStopped):
            await waiting.run
        store.fails = 0
        (info,) = store.sessions()
        assert [each.approval_id for each in await open_requests(store, info)] == [
            waiting.request.approval_id
        ]


class _Forgetful:
    """A model that asks to pay, and keeps nothing of what it was asked."""

    model = "forgetful"

    async def stream(self, request: Request) -> AsyncIterator[Block]:
        paid = any(isinstance(item, ToolResult) for item in request.items)
        async for block in (say("done") if paid else call("pay", {"to": "ann"})).stream():
            yield block


async def test_of_many_that_wait_the_histories_take_no_memory(tmp_path: Path) -> None:
    async with asyncio.timeout(60), PodSystem(f"sqlite:{tmp_path / 'pods.db'}") as system:
        tracemalloc.start()
        try:
            pods = []
            for number in range(20):
                pod = await system.spawn(ASKS, client=_Forgetful(), tools=Till().tools(), name=f"p{number}")
                with pod.subscribe(ApprovalRequested) as questions:
                    run = pod.run(f"{number}{LONG}")
                    question = await anext(questions)
                    assert isinstance(question, ApprovalRequested)
                    pods.append((pod, run, question.approval_id))
                await until_waiting(pod)
            before, _ = tracemalloc.get_traced_memory()
            for pod, _, _ in pods:
                assert await pod.passivate()
            after, _ = tracemalloc.get_traced_memory()
            assert before - after > 20 * len(LONG) * 0.9
            for pod, run, approval_id in pods:
                await pod.approve(approval_id)
                assert (await run).text == "done"
        finally:
            tracemalloc.stop()
