"""The README: its programs run, its manifest loads, and its commands exist."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import msgspec
import pytest
from llm_server import RawServer, stream_reply
from readme_programs import README, blocks

import bench
from actors.cli.display.help_format import each_command
from actors.cli.main import polypod
from actors.llm.base import LLMClient
from actors.llm.http.presets import PRESETS
from polypod import (
    PodManifest,
    PodSystem,
    RunEnd,
    Scope,
    ScriptedClient,
    UserMessage,
    call,
    say,
)

PROGRAMS = blocks("python")

COMMANDS = dict(each_command(polypod, click.Context(polypod)))


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


def run_program(words: str) -> dict[str, Any]:
    """The names of a program that was run as it stands, but for the ``main()`` at its end."""
    names: dict[str, Any] = {"__name__": "program"}
    exec(compile(program(words).removesuffix("asyncio.run(main())\n"), "README.md", "exec"), names)
    return names


def spawning(client: LLMClient) -> type[PodSystem]:
    """Systems whose pods all ask this client."""

    class Spawning(PodSystem):
        def spawn(self, *args: Any, **kwargs: Any) -> Any:
            return super().spawn(*args, client=client, **kwargs)

    return Spawning


@pytest.mark.parametrize("text", PROGRAMS)
def test_each_program_is_whole_and_types_are_checked(text: str, tmp_path: Path):
    (tmp_path / "program.py").write_text(text)
    rules = "E9,F,ANN001,ANN201"
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--select", rules, "program.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert text.startswith(("import ", "from "))


def test_the_first_program_runs_as_it_is_pasted_where_there_is_no_model_server(tmp_path: Path):
    (tmp_path / "program.py").write_text(program("population"))
    done = subprocess.run(
        [sys.executable, "program.py"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "population answered: 291940" in done.stdout
    assert "population answered: 77992 finished" in done.stdout


def test_every_program_that_runs_by_itself_needs_no_model_server():
    by_itself = [each for each in PROGRAMS if "asyncio.run(" in each or "\nwith PodSystem" in each]
    assert len(by_itself) == 3
    assert not any("ollama" in each for each in by_itself)


def test_the_first_program_runs_at_a_server_as_the_text_behind_it_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    text = program("population").replace('model="offline"', 'model="ollama/qwen3"')
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
    run_program("\nwith PodSystem() as system")
    assert capsys.readouterr().out.strip()


def test_the_test_of_an_agent_passes():
    names = run_program("test_the_agent_asks")
    names["test_the_agent_asks_for_the_weather"]()


def test_a_server_goes_on_with_what_the_last_one_left():
    names = run_program("async def lifespan")
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
    asyncio.run(asyncio.wait_for(second(), 60))


async def test_following_works_as_it_is_shown():
    names = run_program("async for event in pod.stream")
    seen: list[Any] = []
    names["print"] = seen.append

    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([say("hi")]))
        following = asyncio.create_task(names["follow"](pod, system))
        with pod.subscribe(RunEnd, since=0) as ends:
            await asyncio.wait_for(anext(ends), 60)
    await asyncio.wait_for(following, 60)
    assert isinstance(seen[-1], RunEnd)
    assert len([event for event in seen if isinstance(event, RunEnd)]) == 2


async def test_a_session_outlives_its_process_as_it_is_shown(capsys: pytest.CaptureFixture[str]):
    names = run_program("resume=session_id")
    manifest = PodManifest.of(model="offline", tools={"builtin": ["files"]}, scope=Scope.readable("."))
    Path("a.txt").write_text("one two\n")

    async with PodSystem(store="sqlite:pods.db") as system:
        pod = await system.spawn(manifest, client=SilentClient())
        run = pod.run("count words in a.txt")
        await pod.pause()
        session_id = (await run).session_id
    await names["go_on"](manifest, session_id)
    text, branch = capsys.readouterr().out.splitlines()
    assert "2 words" in text
    assert branch != session_id


def test_what_tools_work_with_is_handed_to_them_as_it_is_shown():
    client = ScriptedClient([call("orders", {"customer": "Liv"}), say("A kayak.")])
    names = run_program("async def orders")
    names["PodSystem"] = spawning(client)
    assert asyncio.run(names["answer"](names["Shop"](), "What has Liv ordered?")) == "A kayak."
    assert "a kayak for Liv" in client.requests[-1].items[-1].text


def test_an_answer_of_a_type_is_an_instance_as_it_is_shown():
    names = run_program("class City")
    names["PodSystem"] = spawning(ScriptedClient([say('{"name": "Oslo", "people": 717710}')]))
    assert asyncio.run(names["capital_of"]("Norway")) == names["City"]("Oslo", 717710)


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
        known = {option for each in COMMANDS[name].params for option in each.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


def test_what_a_checkout_offers_can_be_imported_as_it_is_said():
    [names] = re.findall(r"`from bench import (.*?)`", README)
    assert all(hasattr(bench, name) for name in names.split(", "))


def test_the_manifest_loads():
    [text] = [text for text in blocks("toml") if text.startswith("[pod]")]
    manifest = PodManifest.from_toml(text)
    assert manifest.name == "reviewer"
    assert manifest.model.api_key_env == "MY_KEY"


def test_the_commands_are_those_there_are():
    named = set(re.findall(r"polypod (\w+)", " ".join(blocks("console"))))
    table = re.findall(r"^\| (`.*?`(?:, `.*?`)*) \|", README, re.MULTILINE)
    named |= {words.split()[0] for row in table for words in re.findall(r"`(.*?)`", row)}
    assert named == COMMANDS.keys()
