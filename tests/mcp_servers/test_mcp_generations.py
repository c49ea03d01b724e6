"""Servers of the SDK: both generations of the protocol, over stdio and HTTP."""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from typing import Any

import pytest
from mcp_kit import at, at_a_port, calls, follow, having, made_with_sdk, play
from ports import unused_port

from actors.llm.scripted import ScriptedClient
from actors.system import PodSystem
from protocol.items import ImagePart

Reached = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def reached() -> Iterator[Callable[[str], dict[str, Any]]]:
    """The server that is reached in some way; those over HTTP are one for all tests here."""
    with ExitStack() as servers:

        @functools.cache
        def reach(way: str) -> dict[str, Any]:
            if way == "stdio":
                return made_with_sdk()
            return at(servers.enter_context(at_a_port(*way.split())))

        yield reach


WAYS = pytest.mark.parametrize("way", ["stdio", "newer", "older", "newer json", "older json"])


@WAYS
async def test_tools_are_listed_and_called(way: str, reached: Reached) -> None:
    wanted = (("sdk__add", {"a": 1, "b": 2}), "sdk__towns", "sdk__fail", "sdk__blocks")
    played = await play(*wanted, of=reached(way))
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
async def test_progress_is_reported_and_a_list_that_grows_is_followed(way: str) -> None:
    wanted = (("sdk__steps", {"count": 3}), "sdk__grow", ("sdk__pause", {"seconds": 0.3}), "sdk__grown")
    # Over HTTP it is one of its own, as it comes to be another.
    with nullcontext() if way == "stdio" else at_a_port(way) as url:
        played = await play(*wanted, of=at(url) if url else made_with_sdk())
    assert played.progress == ["step (0 of 3)", "step (1 of 3)", "step (2 of 3)"]
    assert (played.texts[0], played.texts[-1]) == ("done", "grown")


async def test_headers_come_from_the_environment_and_stand_nowhere(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, reached: Reached
) -> None:
    monkeypatch.setenv("TOWN_TOKEN", "s3cret-value")
    names = {"Authorization": "Bearer ${TOWN_TOKEN}", "X-Town": "TOWN_TOKEN"}
    manifest = having({**reached("newer"), "headers_env": names})
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
                having(at(port)),
                client=ScriptedClient(calls(("sdk__add", {"a": 1, "b": 1}))),
            )
            assert (await follow(pod)).texts == ["2"]
        other = await system.spawn(
            having(at(port)),
            client=ScriptedClient(calls(("sdk__add", {"a": 1, "b": 1}))),
        )
        played = await follow(other)
        assert "MCP server 'sdk'" in played.texts[0]
        assert played.results[0].is_error


async def test_a_url_where_nothing_listens_costs_its_tools_alone() -> None:
    played = await play(of={"name": "gone", "url": f"http://127.0.0.1:{unused_port()}/mcp"})
    assert "MCP server 'gone' could not be reached" in played.alerts[0]
