"""Pictures in a pod: they cost what servers count, not their bytes; and one that is refused bricks no session."""

from __future__ import annotations

from typing import Any

import pytest

from actors.llm.base import Request
from actors.llm.function_client import FunctionClient
from actors.llm.scripted import Reply, ScriptedClient, call, say
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.errors import InvalidInput, ModelError, RunFailed
from protocol.events import Alert, CompactStart
from protocol.items import ImagePart, ToolResult, UserItem
from protocol.manifest import PodManifest

PHOTO = ImagePart("image/jpeg", "/9j/" + "A" * 800_000)
REFUSED = ModelError(
    "messages.2.content.1.image.source.base64: Could not process image", kind="invalid_request", status=400
)


def pictures(request: Request) -> int:
    return sum(isinstance(part, ImagePart) for item in request.items for part in item.content)


@pytest.mark.parametrize("key", ["compact_threshold", "compact_request_threshold"])
async def test_a_photo_is_no_reason_to_compact(key: str) -> None:
    client = ScriptedClient(["a boat", "two boats", "fine"])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(**{key: 20_000}), client=client)
        with system.subscribe(kinds=[CompactStart]) as events:
            for words in ("What is on it?", "And on this?"):
                await pod.run([words, PHOTO])
            await pod.run("thanks")
            assert events.drain() == []
        occupancy = (await pod.describe()).occupancy
        assert occupancy is not None
        assert 2_000 < occupancy < 10_000
        assert [pictures(request) for request in client.requests] == [1, 2, 2]


async def test_a_photo_fits_a_budget_that_its_bytes_would_exceed() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(
            PodManifest.of(budget={"tokens": 20_000}),
            client=ScriptedClient([say("a boat", input_tokens=1500)]),
        )
        assert (await pod.run(["What is on it?", PHOTO])).text == "a boat"


async def test_a_picture_that_a_server_cannot_take_is_left_out_of_later_requests(tmp_path: Any) -> None:
    @tool
    def look() -> list[Any]:
        """Look."""
        return ["seen:", PHOTO]

    def answer(request: Request) -> str | Reply:
        asked.append(pictures(request))
        if asked[-1]:
            raise REFUSED
        last = request.items[-1]
        return call("look", {}) if isinstance(last, UserItem) and last.text == "look" else "fine"

    asked: list[int] = []
    store = f"sqlite:{tmp_path / 'pods.db'}"
    async with PodSystem(store=store) as system:
        pod = await system.spawn(PodManifest.of(), client=FunctionClient(answer), tools=[look])
        assert (await pod.run("hello")).text == "fine"
        with pytest.raises(RunFailed, match="Could not process image"):
            await pod.run(["this one", PHOTO])
        assert (await pod.run("and now?")).text == "fine"
        with pytest.raises(RunFailed, match="Could not process image"):
            await pod.run("look")
        assert (await pod.run("once more")).text == "fine"
        branch = await pod.fork()
        assert sum(PHOTO in item.content for item in await pod.history()) == 2  # the log has them
        assert any(isinstance(item, ToolResult) for item in await pod.history())
        session = (await pod.describe()).session_id
    async with PodSystem(store=store) as system:
        for each in (session, branch):
            pod = await system.spawn(PodManifest.of(), client=FunctionClient(answer), resume=each)
            assert (await pod.run("later")).text == "fine"
    assert asked == [0, 1, 0, 0, 1, 0, 0, 0]


async def test_a_picture_whose_url_is_gone_bricks_no_session(tmp_path: Any) -> None:
    """Its server loads it anew for each request that has it."""

    def answer(request: Request) -> str:
        asked.append(pictures(request))
        if asked[-1] and gone:
            raise ModelError("Error while downloading https://example.com/boat.png", kind="invalid_request")
        return "fine"

    asked: list[int] = []
    gone: list[bool] = []
    store = f"sqlite:{tmp_path / 'pods.db'}"
    photo = ImagePart(url="https://example.com/boat.png")
    async with PodSystem(store=store) as system:
        pod = await system.spawn(PodManifest.of(max_steps=1), client=FunctionClient(answer))
        await pod.run(["What is on it?", photo])
        gone.append(True)
        with system.subscribe(kinds=[Alert]) as alerts:
            assert (await pod.run("thanks")).text == "fine"
            assert "a text replaces each one" in alerts.drain()[0].text
            assert (await pod.run("and now?")).text == "fine"
            assert alerts.drain() == []
        with pytest.raises(RunFailed, match="downloading"):  # its own: the run is left out from then on
            await pod.run(["and here?", photo])
        assert (await pod.run("well?")).text == "fine"
        session = (await pod.describe()).session_id
    async with PodSystem(store=store) as system:
        pod = await system.spawn(PodManifest.of(), client=FunctionClient(answer), resume=session)
        assert (await pod.run("later")).text == "fine"
        assert sum(photo in item.content for item in await pod.history()) == 2
    assert asked == [1, 1, 0, 0, 1, 0, 1, 0]


async def test_a_request_that_is_refused_for_another_reason_keeps_its_turn() -> None:
    refusal = ModelError("temperature is not supported", kind="invalid_request", status=400)
    client = ScriptedClient([refusal, "a boat"])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client)
        with pytest.raises(RunFailed, match="temperature"):
            await pod.run(["What is on it?", PHOTO])
        await pod.run("Well?")
        assert pictures(client.requests[-1]) == 1


async def test_a_picture_without_data_is_an_error_of_who_sends_it() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([]))
        for odd in (ImagePart(), ImagePart(data="no base64!")):
            with pytest.raises(InvalidInput, match="an image needs a url"):
                await pod.run(["look", odd])
            with pytest.raises(InvalidInput, match="an image needs a url"):
                await pod.notify([odd])
        assert await pod.history() == []
