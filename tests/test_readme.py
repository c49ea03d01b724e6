"""The README: its programs run, its manifest loads, and its commands exist."""

import asyncio
import re
from pathlib import Path

import pytest

from actors import CompactDone, PodManifest, PodSystem, RunEnd, ScriptedClient, call, say
from actors.cli.main import polypod
from actors.llm.presets import PRESETS

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


PROGRAMS = blocks("python")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


def program(words: str) -> str:
    [found] = [each for each in PROGRAMS if words in each]
    return found


def test_the_first_program_runs_with_a_client_in_the_place_of_its_server(monkeypatch: pytest.MonkeyPatch):
    client = ScriptedClient(
        [call("population", {"town": "Bergen"}), say("291,940", input_tokens=1, output_tokens=1)]
    )
    spawn = PodSystem.spawn
    monkeypatch.setattr(
        PodSystem, "spawn", lambda self, *args, **more: spawn(self, *args, client=client, **more)
    )
    exec(compile(program("population"), "README.md", "exec"), {"__name__": "program"})


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


def test_the_manifest_loads():
    memory, text = blocks("toml")
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
