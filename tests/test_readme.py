"""The README: its programs run, its manifest loads, and its commands exist."""

import asyncio
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from llm_server import RawServer, stream_reply

import bench
from actors.cli.main import polypod
from actors.llm.base import LLMClient
from actors.llm.http.presets import PRESETS
from polypod import (
    CompactDone,
    PodManifest,
    PodSystem,
    RunEnd,
    Scope,
    ScriptedClient,
    ToolContext,
    UserMessage,
    call,
    say,
    tool,
)

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


PROGRAMS = blocks("python")


class SilentClient(LLMClient):
    """A model that never answers."""

    async def stream(self, request):
        await asyncio.Event().wait()
        yield


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


def program(words: str) -> str:
    [found] = [each for each in PROGRAMS if words in each]
    return found


def test_the_first_program_runs_at_a_server_where_its_preset_looks_for_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    text = program("population")
    assert text.endswith("\nasyncio.run(main())\n")
    names: dict[str, Any] = {"__name__": "program"}
    exec(compile(text.removesuffix("asyncio.run(main())\n"), "README.md", "exec"), names)

    async def main() -> None:
        asked = {"index": 0, "id": "c", "function": {"name": "population", "arguments": '{"town":"Bergen"}'}}
        async with RawServer(streamed({"tool_calls": [asked]}), streamed({"content": "291,940"})) as server:
            here = msgspec.structs.replace(PRESETS["ollama"], base_url=server.url)
            monkeypatch.setitem(PRESETS, "ollama", here)
            await names["main"]()
            assert b"291940" in server.received[1].body

    asyncio.run(main())
    assert capsys.readouterr().out.startswith("291,940 finished")


def streamed(delta: dict[str, Any]) -> bytes:
    """The reply of a server that says that."""
    event = {"choices": [{"index": 0, "delta": delta, "finish_reason": "stop"}]}
    return stream_reply(b"data: %b\n\ndata: [DONE]\n\n" % json.dumps(event).encode())


def test_the_program_without_an_event_loop_runs_as_it_stands(capsys: pytest.CaptureFixture[str]):
    exec(compile(program("\nwith PodSystem() as system"), "README.md", "exec"), {"__name__": "program"})
    assert capsys.readouterr().out.strip()


def test_the_test_of_an_agent_passes():
    def weather(town: str) -> str:
        """How the weather is."""
        return f"rain in {town}"

    names: dict[str, object] = {"weather": weather}
    exec(compile(program("test_the_agent_asks"), "README.md", "exec"), names)
    asyncio.run(names["test_the_agent_asks_for_the_weather"]())  # type: ignore[operator]


def test_a_server_goes_on_with_what_the_last_one_left():
    names: dict[str, Any] = {}
    exec(compile(program("async def lifespan"), "README.md", "exec"), names)
    app = SimpleNamespace(state=SimpleNamespace())

    async def first() -> None:
        async with names["lifespan"](app):
            pod = await app.state.system.spawn(PodManifest.of(name="agent"), client=SilentClient())
            run = pod.run("list files")
            with pod.subscribe(UserMessage) as events:
                await anext(events)
        assert (await run).outcome == "paused"

    async def second() -> None:
        async with names["lifespan"](app):
            [pod] = app.state.system.pods()
            with pod.subscribe(RunEnd, since=0) as events:
                async for event in events:
                    if event.outcome == "finished":
                        return

    asyncio.run(first())
    asyncio.run(asyncio.wait_for(second(), 20))


def test_following_works_as_it_is_shown():
    body = "\n".join(f"    {line}" for line in program("async for event in pod.stream").splitlines())
    body = body.replace("print(event)", "seen.append(event)").replace("...", "return seen")
    names: dict[str, object] = {"RunEnd": RunEnd, "CompactDone": CompactDone}
    exec(f"async def follow(pod, system):\n    seen = []\n{body}", names)

    async def main() -> None:
        async with PodSystem() as system:
            pod = await system.spawn(PodManifest.of(), client=ScriptedClient([say("hi")]))
            seen = await asyncio.wait_for(names["follow"](pod, system), 10)  # type: ignore[operator]
            assert isinstance(seen[-1], RunEnd)

    asyncio.run(main())


def test_a_session_outlives_its_process_as_it_is_shown():
    body = "\n".join(f"    {line}" for line in program("resume=session_id").splitlines())
    names: dict[str, object] = {"PodSystem": PodSystem}
    exec(f"async def again(manifest, session_id):\n{body}\n    return result.text, branch", names)
    manifest = PodManifest.of(model="offline", tools={"builtin": ["files"]}, scope=Scope.readable("."))
    Path("a.txt").write_text("one two\n")

    async def main() -> None:
        async with PodSystem(store="sqlite:pods.db") as system:
            pod = await system.spawn(manifest, client=SilentClient())
            run = pod.run("count words in a.txt")
            await pod.pause()
            session_id = (await run).session_id
        text, branch = await names["again"](manifest, session_id)  # type: ignore[operator]
        assert "2 words" in text
        assert branch != session_id

    asyncio.run(main())


def test_what_tools_work_with_is_handed_to_them_as_it_is_shown():
    class Shop:
        async def open_orders(self, customer: str) -> list[str]:
            return [f"a kayak for {customer}"]

    client = ScriptedClient([call("orders", {"customer": "Liv"}), say("A kayak.")])

    class Spawning(PodSystem):
        def spawn(self, *args: Any, **kwargs: Any) -> Any:
            return super().spawn(*args, client=client, **kwargs)

    names: dict[str, Any] = {
        "tool": tool,
        "ToolContext": ToolContext,
        "PodSystem": Spawning,
        "manifest": PodManifest.of(),
        "Shop": Shop,
    }
    exec(compile(program("async def orders"), "README.md", "exec"), names)
    assert asyncio.run(names["answer"](Shop(), "What has Liv ordered?")) == "A kayak."
    assert "a kayak for Liv" in client.requests[-1].items[-1].text


def test_an_answer_of_a_type_is_an_instance_as_it_is_shown(capsys: pytest.CaptureFixture[str]):
    kind, ask = program("class City").split("\n\n\n")
    body = "\n".join(f"    {line}" for line in ask.splitlines())
    names: dict[str, object] = {"msgspec": msgspec, "__name__": "program"}
    exec(f"{kind}\n\n\nasync def ask(pod):\n{body}", names)

    async def main() -> None:
        async with PodSystem() as system:
            client = ScriptedClient([say('{"name": "Oslo", "people": 717710}')])
            await names["ask"](await system.spawn(PodManifest.of(), client=client))  # type: ignore[operator]

    asyncio.run(main())
    assert capsys.readouterr().out == "717710\n"


def test_what_is_called_within_the_text_can_be_called_so():
    Path("prices.toml").write_text("")
    calls = [
        call for call in re.findall(r"`(Pod(?:System|Manifest\.of)\([^`]*\))`", README) if "…" not in call
    ]
    assert len(calls) >= 3
    for each in calls:
        eval(each, {"PodSystem": PodSystem, "PodManifest": PodManifest})


def test_the_options_of_commands_are_those_there_are():
    lines = re.findall(r"^\$ (polypod .*)", "\n".join(blocks("console")), re.MULTILINE)
    rows = re.findall(r"^\| (`.*?) \|", README, re.MULTILINE)
    lines += [f"polypod {words}" for row in rows for words in re.findall(r"`(.*?)`", row)]
    for line in lines:
        _, name, *words = re.findall(r"[\w-]+", line.partition("#")[0])
        known = {option for each in polypod.commands[name].params for option in each.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


def test_what_a_checkout_offers_can_be_imported_as_it_is_said():
    [names] = re.findall(r"`from bench import (.*?)`", README)
    assert all(hasattr(bench, name) for name in names.split(", "))


def test_the_manifest_loads():
    [memory] = [text for text in blocks("toml") if text.startswith("[memory]")]
    [text] = [text for text in blocks("toml") if text.startswith("[pod]")]
    assert PodManifest.from_toml(memory).memory.recall_tokens == 1000
    manifest = PodManifest.from_toml(text)
    assert manifest.name == "reviewer"
    assert manifest.model.api_key_env == "MY_KEY"


def test_the_commands_are_those_there_are():
    named = set(re.findall(r"polypod (\w+)", " ".join(blocks("console"))))
    table = re.findall(r"^\| (`.*?`(?:, `.*?`)*) \|", README, re.MULTILINE)
    named |= {words.split()[0] for row in table for words in re.findall(r"`(.*?)`", row)}
    assert named == set(polypod.commands)


def test_the_schemes_of_the_manifest_are_those_there_are():
    [told] = re.findall(r"scheme = .*# (.*)", README)
    assert set(told.split(", ")) == {"offline", *PRESETS}
