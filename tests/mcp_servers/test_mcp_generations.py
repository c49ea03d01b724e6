"""Servers of the SDK: both generations of the protocol, over stdio and HTTP."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from mcp_kit import SERVERS, calls, follow, having, made_with_sdk, play
from ports import unused_port

from actors.llm.scripted import ScriptedClient
from actors.system import PodSystem
from protocol.items import ImagePart


@contextmanager
def at_a_port(*words: str) -> Iterator[str]:
    """A server over HTTP, at the URL that is given."""
    command = [sys.executable, SERVERS / "sdk_server.py", "http", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/mcp"
        finally:
            process.kill()


@contextmanager
def reached(way: str) -> Iterator[dict[str, Any]]:
    if way == "stdio":
        yield made_with_sdk()
        return
    with at_a_port(*way.split()) as url:
        yield {"name": "sdk", "url": url, "approval": "allow"}


WAYS = pytest.mark.parametrize("way", ["stdio", "newer", "older", "newer json", "older json"])


@WAYS
async def test_tools_are_listed_and_called(way: str) -> None:
    wanted = (("sdk__add", {"a": 1, "b": 2}), "sdk__towns", "sdk__fail", "sdk__blocks")
    with reached(way) as server:
        played = await play(*wanted, of=server)
    added, towns, failed, blocks = played.results
    assert added.text == "3"
    assert '"Oslo":' in towns.text.replace(" ", "").replace("\n", "")
    assert towns.text.count("Oslo") == 1  # not once more as structured content
    assert failed.is_error
    assert [type(part) for part in blocks.content].count(ImagePart) == 1
    assert "[audio, audio/wav, 3 bytes" in blocks.text
    assert "[memo://1]\na memo" in blocks.text
    assert "[link to https://example.com/: page, an example]" in blocks.text


@pytest.mark.parametrize("way", ["stdio", "newer", "older"])
async def test_progress_is_reported(way: str) -> None:
    with reached(way) as server:
        played = await play(("sdk__steps", {"count": 3}), of=server)
    assert played.texts == ["done"]
    assert played.progress == ["step (0 of 3)", "step (1 of 3)", "step (2 of 3)"]


@pytest.mark.parametrize("way", ["stdio", "newer", "older"])
async def test_a_list_that_grows_is_followed(way: str) -> None:
    wanted = ("sdk__grow", ("sdk__pause", {"seconds": 0.3}), "sdk__grown")
    with reached(way) as server:
        played = await play(*wanted, of=server)
    assert played.texts[-1] == "grown"


async def test_headers_come_from_the_environment_and_stand_nowhere(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOWN_TOKEN", "s3cret-value")
    names = {"Authorization": "Bearer ${TOWN_TOKEN}", "X-Town": "TOWN_TOKEN"}
    with reached("newer") as server:
        manifest = having({**server, "headers_env": names})
        asked = [("sdk__header", {"name": name}) for name in ("x-town", "authorization")]
        async with PodSystem(f"jsonl:{tmp_path}") as system:
            pod = await system.spawn(manifest, client=ScriptedClient(calls(*asked)[:1]))
            with pytest.raises(Exception):  # noqa: B017, PT011 - the script ends
                await pod.run("go")
    kept = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert kept.count("s3cret-value") == 1  # what the tool itself has reported


async def test_a_server_at_a_url_that_forgets_the_session_is_asked_anew() -> None:
    async with PodSystem() as system:
        with at_a_port("older") as url:
            port = url
            pod = await system.spawn(
                having({"name": "sdk", "url": port, "approval": "allow"}),
                client=ScriptedClient(calls(("sdk__add", {"a": 1, "b": 1}))),
            )
            assert (await follow(pod)).texts == ["2"]
        other = await system.spawn(
            having({"name": "sdk", "url": port, "approval": "allow"}),
            client=ScriptedClient(calls(("sdk__add", {"a": 1, "b": 1}))),
        )
        played = await follow(other)
        assert "MCP server 'sdk'" in played.texts[0]
        assert played.results[0].is_error


async def test_a_url_where_nothing_listens_costs_its_tools_alone() -> None:
    played = await play(of={"name": "gone", "url": f"http://127.0.0.1:{unused_port()}/mcp"})
    assert "MCP server 'gone' could not be reached" in played.alerts[0]
