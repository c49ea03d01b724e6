"""What one run is given in the place of what its pod has: a model, settings, a prompt, tools, a validator."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.runs.options import run_command, run_for_wire
from actors.pod.runs.own_options import checked_prompt
from actors.system import PodSystem
from actors.tools.base import ToolContext, tool
from protocol.approval import ApprovalRule
from protocol.commands import WireOptions
from protocol.errors import InvalidInput, ManifestError, ModelRetry, OutputInvalid, RunFailed
from protocol.events import RunEnd
from protocol.items import AssistantItem, SystemItem
from protocol.manifest import BudgetSection, PodManifest
from protocol.model_settings import ModelSettings


class City(msgspec.Struct):
    name: str


@tool
def add(a: int, b: int) -> int:
    """The sum."""
    return a + b


@tool
def shout(text: str) -> str:
    """Louder."""
    return text.upper()


BERGEN, OSLO = '{"name": "Bergen"}', '{"name": "Oslo"}'


async def test_a_run_may_be_answered_by_another_client_and_the_next_is_not() -> None:
    mine, other = ScriptedClient([say("mine"), say("mine")]), ScriptedClient([say("other")])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=mine)
        assert [(await pod.run("1")).text, (await pod.run("2", model=other)).text] == ["mine", "other"]
        assert (await pod.run("3")).text == "mine"
    assert [len(request.items) for request in mine.requests] == [1, 5]


class Falsy(ScriptedClient):
    """A client that says of itself that there is nothing in it."""

    def __len__(self) -> int:
        return 0


async def test_options_that_are_empty_are_given_all_the_same() -> None:
    mine, other = ScriptedClient([say("1"), say("2"), say("3")]), Falsy([say("other")])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(system_prompt="pod's"), client=mine)
        await pod.run("1", system_prompt="")
        await pod.run("2", system_prompt=None)
        assert (await pod.run("3", model=other)).text == "other"
        await pod.run("4", tools=[])
    assert [request.system for request in mine.requests] == ["", "pod's", "pod's"]
    assert run_for_wire(run_command("x", None, {"system_prompt": ""}, None)).options == WireOptions(
        system_prompt=""
    )
    with pytest.raises(InvalidInput, match="client cannot be sent"):
        run_for_wire(run_command("x", None, {"model": other}, None))


async def test_a_run_may_be_answered_by_a_model_that_is_named() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([]))
        result = await pod.run("hello", model="offline")
        assert result.outcome == "finished"
        with pytest.raises(RunFailed) as failed:
            await pod.run("hello", model="ollma/qwen3")
        assert isinstance(failed.value.__cause__, ManifestError)
        assert "did you mean" in str(failed.value)
        for wrong in (7, {"schem": "x"}):
            with pytest.raises((ManifestError, InvalidInput)):
                pod.run("hello", model=wrong)


async def test_model_settings_of_a_run_stand_over_those_of_the_manifest() -> None:
    client = ScriptedClient([say("1"), say("2"), say("3")])
    manifest = PodManifest.of(model={"temperature": 0.5, "top_p": 0.9, "max_tokens": 100, "seed": 1})
    async with PodSystem() as system:
        pod = await system.spawn(manifest, client=client)
        await pod.run("1")
        await pod.run("2", model_settings={"temperature": 0.1, "seed": 2, "max_tokens": 50, "stop": ["END"]})
        await pod.run("3", model_settings=ModelSettings(reasoning_effort="low"))
    first, second, third = client.requests
    assert (first.temperature, first.max_tokens) == (0.5, 100)
    assert first.settings == ModelSettings(top_p=0.9, seed=1)
    assert (second.temperature, second.max_tokens) == (0.1, 50)
    assert second.settings == ModelSettings(top_p=0.9, seed=2, stop=("END",))
    assert third.settings == ModelSettings(top_p=0.9, seed=1, reasoning_effort="low")


async def test_a_request_without_settings_has_none() -> None:
    client = ScriptedClient([say("1")])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(model={"temperature": 0.5}, max_tokens=7), client=client)
        await pod.run("1")
    assert client.requests[0].settings is None
    assert client.requests[0].max_tokens == 7


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"top_q": 1}, "top_q"),
        ({"top_p": 2}, "at most 1"),
        ({"attempts": 0}, "at least 1"),
        ({"timeout": 0}, "more than 0"),
        ({"stop": [""]}, "stop"),
        ({"tool_choice": ""}, "tool_choice"),
        ({"extra_body": {"messages": []}}, "messages"),
        ({"extra_headers": {"X-Api-Key": "abc"}}, "secret"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
    ],
)
async def test_a_setting_that_cannot_be_is_an_error_at_once(settings: dict[str, Any], words: str) -> None:
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([]))
        with pytest.raises(ManifestError, match=words):
            pod.run("1", model_settings=settings)
    with pytest.raises(ManifestError, match=words.replace("settings", "")):
        PodManifest.of(model={"scheme": "openai", **settings})


async def test_what_is_no_list_of_tools_is_an_error_at_once() -> None:
    given: Any = 5
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([]))
        with pytest.raises(InvalidInput, match="tools: expected a list, got 5"):
            pod.run("1", tools=given)


@pytest.mark.parametrize("given", [5, "ab", [1]])
def test_what_are_no_settings_at_all_is_an_error_of_the_settings(given: Any) -> None:
    with pytest.raises(ManifestError, match=r"model_settings: expected .* got"):
        ModelSettings.of(given)


async def test_a_call_is_demanded_of_a_runs_first_request_alone() -> None:
    client = ScriptedClient([call("add", {"a": 1, "b": 2}), say("3"), say("4")])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client, tools=[add])
        await pod.run("1 + 2?", model_settings={"tool_choice": "add"})
        await pod.run("and?", model_settings={"tool_choice": "none"})
        with pytest.raises(RunFailed, match="no tool 'sub'"):
            await pod.run("1", model_settings={"tool_choice": "sub"})
    choices = [None if r.settings is None else r.settings.tool_choice for r in client.requests]
    assert choices == ["add", None, "none"]


async def test_a_run_that_has_to_call_a_tool_that_there_is_not_fails_alone() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([say("on")]), tools=[add])
        with system.subscribe(kinds=RunEnd) as ends:
            with pytest.raises(RunFailed, match="there is no tool 'ad'"):
                await pod.run("1", model_settings={"tool_choice": "ad"})
            assert (await pod.run("2")).text == "on"
            assert [end.outcome for end in ends.drain()] == ["failed", "finished"]


async def test_a_system_prompt_is_made_for_each_run_and_once_in_it() -> None:
    made: list[str] = []

    async def prompt(ctx: ToolContext[str]) -> str:
        made.append(ctx.deps)
        await asyncio.sleep(0)
        return f"You work for {ctx.deps}."

    client = ScriptedClient([call("add", {"a": 1, "b": 2}), say("3"), say("4"), say("5"), say("6")])
    async with PodSystem() as system:
        pod = await system.spawn(
            PodManifest.of(), client=client, tools=[add], deps="Ada", system_prompt=prompt
        )
        await pod.run("1 + 2?")
        await pod.run("again", deps="Bob")
        await pod.run("again", system_prompt="Be brief.")
        await pod.run("again", system_prompt=lambda: "Be long.")
    assert [request.system for request in client.requests] == [
        "You work for Ada.",
        "You work for Ada.",
        "You work for Bob.",
        "Be brief.",
        "Be long.",
    ]
    assert made == ["Ada", "Bob"]


async def test_a_prompt_that_fails_or_is_none_ends_its_run_alone() -> None:
    def raise_error() -> str:
        raise LookupError("no such tenant")

    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([say("1")]))
        with pytest.raises(RunFailed, match="no such tenant"):
            await pod.run("1", system_prompt=raise_error)
        with pytest.raises(RunFailed, match="must return a string, not 7"):
            await pod.run("1", system_prompt=lambda: 7)
        with pytest.raises(InvalidInput):
            pod.run("1", system_prompt=7)  # type: ignore[call-overload]
        with pytest.raises(InvalidInput):
            system.spawn(PodManifest.of(), system_prompt=7)  # type: ignore[arg-type]
        assert (await pod.run("1")).text == "1"
        assert checked_prompt(raise_error) is raise_error


async def test_a_run_that_waits_for_its_prompt_can_be_cancelled() -> None:
    waits = asyncio.Event()

    async def never() -> str:
        waits.set()
        await asyncio.Event().wait()
        return ""

    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([say("1")]))
        run = pod.run("1", system_prompt=never)
        await waits.wait()
        await pod.cancel()
        assert (await run).outcome == "cancelled"
        assert (await pod.run("1")).text == "1"


async def test_a_run_has_its_tools_beside_the_pods_and_the_next_has_not() -> None:
    client = ScriptedClient(
        [
            call("shout", {"text": "a"}) + call("add", {"a": 1, "b": 2}),
            say("A"),
            call("shout", {"text": "a"}),
            say("?"),
        ]
    )
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client, tools=[add])
        await pod.run("1", tools=[shout])
        results = [item.text for item in (await pod.history())[2:4]]
        assert results == ["A", "3"]
        await pod.run("2")
        assert "no tool" in (await pod.history())[-2].text
        with pytest.raises(RunFailed, match="two tools have the name 'add'"):
            await pod.run("3", tools=[add])
    assert [[each.name for each in request.tools] for request in client.requests] == [
        ["add", "shout"],
        ["add", "shout"],
        ["add"],
        ["add"],
    ]


async def test_a_pod_that_asks_people_takes_no_tools_for_one_run() -> None:
    async with PodSystem() as system:
        manifest = PodManifest.of(approval=[ApprovalRule("add", "ask")])
        pod = await system.spawn(manifest, client=ScriptedClient([]), tools=[add])
        with pytest.raises(RunFailed, match="cannot change its tools"):
            await pod.run("1", tools=[shout])


async def test_a_validator_sends_its_words_to_the_model() -> None:
    seen: list[Any] = []

    def check(city: City, ctx: ToolContext[set[str]]) -> None:
        seen.append(city.name)
        if city.name not in ctx.deps:
            raise ModelRetry(f"There is no {city.name} in our atlas.")

    client = ScriptedClient([say(BERGEN), say(OSLO)])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client, deps={"Oslo"})
        result = await pod.run("where?", output=City, output_validator=check)
        assert result.output == City("Oslo")
        assert seen == ["Bergen", "Oslo"]
        notice = client.requests[1].items[-1]
        assert isinstance(notice, SystemItem)
        assert notice.text.startswith("There is no Bergen in our atlas.")
        assert "JSON Schema" in notice.text


async def test_a_validator_may_be_async_see_texts_and_give_another_answer() -> None:
    async def longer(text: str) -> str:
        await asyncio.sleep(0)
        return text * 2

    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([say("ab")]))
        result = await pod.run("1", output_validator=longer)
    assert (result.text, result.output) == ("ab", "abab")


async def test_a_model_that_never_satisfies_its_validator_fails_the_run() -> None:
    def never(_: Any) -> None:
        raise ModelRetry("Not that one.")

    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([say("a"), say("b"), say("c")]))
        with pytest.raises(RunFailed, match="Not that one") as failed:
            await pod.run("1", output_validator=never)
        assert isinstance(failed.value.__cause__, OutputInvalid)


@pytest.mark.parametrize("join", ["steer", "notify"])
async def test_words_that_come_while_a_validator_looks_are_answered_in_the_same_run(join: str) -> None:
    async def look(text: str) -> None:
        if text == "a":
            words.append(getattr(pod, join)("and this"))
            await pod.describe()  # by then they have come

    words: list[Any] = []
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([say("a"), say("b")]))
        result = await pod.run("1", output_validator=look)
        await asyncio.gather(*words)
        assert (result.text, result.steps) == ("b", 2)
        assert [item.text for item in await pod.history()] == ["1", "a", "and this", "b"]


async def test_a_validator_that_breaks_fails_the_run_and_one_that_hangs_can_be_cancelled() -> None:
    async def hang(_: Any) -> None:
        waits.set()
        await asyncio.Event().wait()

    def raise_error(_: Any) -> None:
        raise LookupError("the atlas is gone")

    waits = asyncio.Event()
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([say("a"), say("b"), say("c")]))
        with pytest.raises(RunFailed, match="the atlas is gone"):
            await pod.run("1", output_validator=raise_error)
        run = pod.run("2", output_validator=hang)
        await waits.wait()
        await pod.cancel()
        assert (await run).outcome == "cancelled"
        assert (await pod.run("3")).text == "c"


async def test_an_answer_is_durable_before_its_validator_sees_it(tmp_path: Path) -> None:
    async with PodSystem(f"sqlite:{tmp_path}/pods.db") as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([say("a")]))

        async def look(_: Any) -> None:
            history.extend(await pod.history())

        history: list[Any] = []
        await pod.run("1", output_validator=look)
        assert [item.text for item in history] == ["1", "a"]


async def test_a_paused_run_keeps_its_options_and_a_restored_one_takes_them_anew() -> None:
    class Gated:
        def __init__(self) -> None:
            self.asked, self.go, self.systems = asyncio.Event(), asyncio.Event(), []

        async def stream(self, request: Any) -> Any:
            self.systems.append(request.system)
            self.asked.set()
            await self.go.wait()
            async for block in say("done").stream():
                yield block

    async with PodSystem() as system:
        client = Gated()
        pod = await system.spawn(PodManifest.of(system_prompt="pod's"), client=client, session="s")
        run = pod.run("1", system_prompt="mine")
        await client.asked.wait()
        await pod.pause()
        assert (await run).outcome == "paused"
        client.asked.clear()
        run = pod.resume()
        await client.asked.wait()
        await pod.pause()
        await pod.stop()
        client.go.set()
        pod = await system.spawn(PodManifest.of(system_prompt="pod's"), client=client, session="s")
        await pod.resume(system_prompt="given again")
        await pod.run("2")
    assert client.systems == ["mine", "mine", "given again", "pod's"]


@pytest.mark.parametrize("meanwhile", ["nothing", "words", "a pushed answer"])
async def test_a_run_that_has_its_answer_when_its_session_is_restored_ends_with_it_if_nothing_was_said_since(
    meanwhile: str,
) -> None:
    looks = asyncio.Event()

    async def look(_: str) -> None:
        looks.set()
        await asyncio.Event().wait()

    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([say("Oslo")]), session="s")
        pod.run("where?", output_validator=look)
        await looks.wait()
        await pod.pause()
        await pod.stop()
        client = ScriptedClient([] if meanwhile == "nothing" else [say("more")])
        pod = await system.spawn(PodManifest.of(), client=client, session="s")
        if meanwhile == "words":
            await pod.notify("and then?")
        elif meanwhile == "a pushed answer":
            await pod.push_item(AssistantItem.of("Oslo!"))
        result = await pod.resume()
        assert (result.text, result.outcome) == ("Oslo" if meanwhile == "nothing" else "more", "finished")


async def test_a_budget_of_dollars_refuses_a_model_whose_price_nobody_knows() -> None:
    manifest = PodManifest.of(model="openai/gpt-4o", budget=BudgetSection(cost_usd=1.0))
    async with PodSystem() as system:
        pod = await system.spawn(manifest, client=ScriptedClient([]))
        with pytest.raises(RunFailed, match=r"the price .* is unknown"):
            await pod.run("1", model=ScriptedClient([]))


async def test_the_end_of_a_run_that_could_not_begin_is_recorded() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([]))
        with pod.subscribe(RunEnd) as events:
            with pytest.raises(RunFailed):
                await pod.run("1", model="nobody/knows")
            (end,) = events.drain()
        assert end.outcome == "failed"
        assert [item.text for item in await pod.history()] == ["1"]
