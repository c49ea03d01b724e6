"""``runner_func``: an async function as an agent."""

import asyncio
from pathlib import Path

import pytest

from actors.swarm.runners.base import Answer, Permission
from actors.swarm.runners.function import AgentContext, runner_func
from polypod import (
    AgentBusy,
    AgentIdle,
    AgentNotRunning,
    AgentStarted,
    AgentStopped,
    AssistantMessage,
    RunEnd,
    UserMessage,
)
from tests.swarm.runner_kit import KitHost, Reader, launch, names, one


async def test_a_function_is_an_agent_whose_end_is_its_own(tmp_path: Path):
    async def work(agent: AgentContext) -> str:
        return f"{agent.task} done"

    async with KitHost() as host:
        events = await Reader(runner_func(work).start(launch(tmp_path), host)).all()
    kinds = ["AgentStarted", "RunStart", "UserMessage", "AssistantMessage", "RunEnd", "AgentStopped"]
    assert names(events) == kinds
    assert one(events, AgentStarted).runner == "work"
    assert one(events, AssistantMessage).item.text == "do it done"
    assert one(events, RunEnd).outcome == "finished"
    stopped = one(events, AgentStopped)
    assert (stopped.reason, stopped.code, stopped.error) == ("exit", 0, None)
    assert {event.pod for event in events} == {"a-1"}


async def test_what_a_function_raises_fails_its_task_and_its_agent(tmp_path: Path):
    async def work(_: AgentContext) -> None:
        raise ValueError("no such file")

    async with KitHost() as host:
        events = await Reader(runner_func(work).start(launch(tmp_path), host)).all()
    end, stopped = one(events, RunEnd), one(events, AgentStopped)
    assert (end.outcome, stopped.reason, stopped.code) == ("failed", "exit", 1)
    assert end.error is not None
    assert stopped.error == end.error
    assert "no such file" in end.error


async def test_words_reach_a_function_only_once_they_are_recorded(tmp_path: Path):
    got: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def work(agent: AgentContext) -> None:
        got.set_result(await agent.receive("ready"))

    async with KitHost() as host:
        life = runner_func(work).start(launch(tmp_path), host)
        seen = []
        async for event in life:
            seen.append(event)
            if names(seen)[-1] == "AgentIdle":
                sending = asyncio.create_task(life.send("and the docs"))
            if isinstance(event, UserMessage) and event.item.text == "and the docs":
                for _ in range(5):
                    await asyncio.sleep(0)
                assert not got.done()
        await sending
        assert await got == "and the docs"
        assert names(seen).count("RunEnd") == 2


async def test_words_join_a_task_or_are_refused_as_the_function_wants(tmp_path: Path):
    gone_on = asyncio.Event()

    async def work(agent: AgentContext) -> str:
        await gone_on.wait()
        return ", ".join(agent.joined())

    for joins in (True, False):
        gone_on.clear()
        async with KitHost() as host:
            life = runner_func(work, joins=joins).start(launch(tmp_path), host)
            reader = Reader(life)
            await reader.until(UserMessage)
            if joins:
                await life.send("and this")
            else:
                with pytest.raises(AgentBusy):
                    await life.send("and this")
            gone_on.set()
            events = await reader.all()
            assert one(events, AssistantMessage).item.text == ("and this" if joins else "")
            with pytest.raises(AgentNotRunning):
                await life.send("too late")


async def test_a_task_is_cancelled_and_its_agent_goes_on_where_it_wants(tmp_path: Path):
    begun = asyncio.Event()

    async def work(agent: AgentContext) -> str:
        text = agent.task or ""
        begun.set()
        while text != "leave":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                text = await agent.receive(outcome="cancelled")
        return "left"

    async with KitHost() as host:
        life = runner_func(work).start(launch(tmp_path), host)
        reader = Reader(life)
        await begun.wait()
        await life.cancel()
        await reader.until(AgentIdle)
        await life.send("leave")
        events = await reader.all()
    assert [event.outcome for event in events if isinstance(event, RunEnd)] == ["cancelled", "finished"]
    assert one(events, AgentStopped).reason == "exit"


@pytest.mark.parametrize("way", ["cancel", "stop"])
async def test_a_function_that_is_cancelled_or_stopped_says_so(tmp_path: Path, way: str):
    async def work(_: AgentContext) -> None:
        await asyncio.Event().wait()

    async with KitHost() as host:
        life = runner_func(work).start(launch(tmp_path), host)
        reader = Reader(life)
        await reader.until(UserMessage)
        await (life.cancel() if way == "cancel" else life.stop())
        events = await reader.all()
    assert one(events, RunEnd).outcome == "cancelled"
    assert one(events, AgentStopped).reason == ("cancelled" if way == "cancel" else "shutdown")


async def test_an_agent_that_nobody_reads_can_be_stopped(tmp_path: Path):
    async def work(_: AgentContext) -> None:
        await asyncio.Event().wait()

    async with KitHost() as host:
        life = runner_func(work).start(launch(tmp_path), host)
        async with asyncio.timeout(10):
            await life.stop()
        assert names(await Reader(life).all())[-1] == "AgentStopped"


async def test_a_function_asks_a_person(tmp_path: Path):
    async def yes(permission: Permission) -> Answer:
        return Answer(approved=permission.tool == "shell")

    async def work(agent: AgentContext) -> str:
        return str((await agent.ask(Permission(tool="shell", arguments={"command": "ls"}))).approved)

    async with KitHost(yes) as host:
        events = await Reader(runner_func(work).start(launch(tmp_path), host)).all()
    assert one(events, AssistantMessage).item.text == "True"


@pytest.mark.parametrize("given", [5, {"answer": 1}, b"bytes"])
async def test_a_function_whose_answer_is_no_text_fails_its_task_and_its_agent(tmp_path: Path, given: object):
    async def work(_: AgentContext) -> object:
        return given

    async with KitHost() as host:
        events = await Reader(runner_func(work).start(launch(tmp_path), host)).all()
    assert one(events, RunEnd).outcome == "failed"
    assert "the answer of the agent's function" in one(events, AgentStopped).error
