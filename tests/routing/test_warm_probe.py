"""``WarmProbe``: which models a server has loaded, by what three kinds of servers say of that."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

import pytest
from llm_server import Exchange, RawServer, reply
from ports import unused_port
from routing.chain_kit import LARGE, Verdicts

from actors.routing.warm_probe import MOST_BYTES, plain_name
from polypod import ChainInvalid, ChainRequest, EscalationChain, ScriptedClient, WarmProbe, say

NOT_THERE = reply(b"{}", status="404 Not Found")


def answering(**paths: object) -> Callable[[Exchange], object]:
    """A server that answers these paths (``running`` is ``/running``, ``api_ps`` is ``/api/ps``)."""
    known = {f"/{path.replace('_', '/')}": body for path, body in paths.items()}

    async def answer(exchange: Exchange) -> None:
        body = known.get(exchange.received.path)
        sent = body if isinstance(body, bytes) else reply(json.dumps(body).encode())
        await exchange.send(NOT_THERE if body is None else sent)

    return answer


async def warm(server: RawServer, *models: str) -> list[bool]:
    async with WarmProbe(server.url, seconds=30) as probe:
        return [await probe.is_warm(each) for each in models]


async def test_warm_at_llama_swap_is_what_is_ready_and_nothing_else():
    running = [
        {"model": name, "state": name} for name in ("ready", "starting", "stopping", "stopped", "shutdown")
    ]
    async with RawServer(answering(running={"running": running})) as server:
        assert await warm(server, "ready", "starting", "stopping", "stopped", "shutdown") == [
            True,
            *[False] * 4,
        ]


async def test_bug_what_v1_models_lists_is_what_there_is_and_not_what_is_loaded():
    listed = {"data": [{"id": "phi4"}]}
    async with RawServer(answering(running={"running": []}, v1_models=listed)) as server:
        assert await warm(server, "phi4") == [False]


async def test_warm_at_ollama_is_what_it_has_in_memory_whatever_the_tag():
    loaded = {"models": [{"name": "qwen3:latest", "model": "qwen3:latest", "size": 5}, {"name": "phi4:14b"}]}
    async with RawServer(answering(api_ps=loaded)) as server:
        assert await warm(server, "ollama/qwen3", "qwen3:latest", "phi4", "ollama/phi4:14b") == [
            True,
            True,
            False,
            True,
        ]


async def test_warm_at_a_router_of_llama_cpp_is_what_it_has_loaded():
    listed = {
        "data": [
            {"id": each, "status": {"value": each}} for each in ("loaded", "loading", "unloaded", "sleeping")
        ]
    }
    async with RawServer(answering(health={"status": "ok"}, v1_models=listed)) as server:
        assert await warm(server, "loaded", "loading", "unloaded", "sleeping") == [True, False, False, False]


async def test_a_llama_server_of_one_model_is_warm_once_it_is_well():
    listed = {"data": [{"id": "phi4.gguf"}]}
    loading = reply(b'{"error":{"message":"Loading model"}}', status="503 Service Unavailable")
    async with RawServer(answering(health=loading, v1_models=listed)) as server:
        assert await warm(server, "phi4.gguf") == [False]
    async with RawServer(answering(health={"status": "ok"}, v1_models=listed)) as server:
        assert await warm(server, "phi4.gguf", "llama_cpp/phi4.gguf", "phi4") == [True, True, False]


async def test_bug_substring_match_phi4_is_warm_if_phi4_mini_is_listed():
    async with RawServer(
        answering(running={"running": [{"model": "phi4-mini", "state": "ready"}]})
    ) as server:
        assert await warm(server, "phi4", "phi4-mini") == [False, True]


async def test_bug_ollama_phi4_never_matches_a_server_listing_phi4():
    async with RawServer(answering(running={"running": [{"model": "phi4", "state": "ready"}]})) as server:
        assert await warm(server, "ollama/phi4", "phi4", "llama_cpp/phi4") == [True, True, True]
    assert plain_name("qwen/qwen3-8b") == "qwen/qwen3-8b"


async def test_bug_status_code_and_body_size_are_unchecked():
    body = json.dumps({"running": [{"model": "phi4", "state": "ready"}]}).encode()
    async with RawServer(answering(running=reply(body, status="500 Internal Server Error"))) as server:
        assert await warm(server, "phi4") == [False]
    async with RawServer(answering(running=reply(body + b" " * MOST_BYTES))) as server:
        assert await warm(server, "phi4") == [False]
    async with RawServer(answering(running=reply(b"phi4 is ready"))) as server:
        assert await warm(server, "phi4") == [False]


async def test_what_does_not_answer_in_time_or_at_all_is_cold():
    async def never(_: Exchange) -> None:
        await asyncio.Event().wait()

    async with RawServer(never) as server, WarmProbe(server.url) as probe:
        began = time.monotonic()
        assert not await probe.is_warm("phi4")
        assert time.monotonic() - began < 5
    async with WarmProbe(f"http://127.0.0.1:{unused_port()}") as probe:
        assert not await probe.is_warm("phi4")


async def test_a_look_is_shared_by_all_who_ask_and_good_for_a_while():
    async with RawServer(answering(running={"running": [{"model": "phi4", "state": "ready"}]})) as server:
        async with WarmProbe(server.url, seconds=30, good_for=30) as probe:
            assert await asyncio.gather(*(probe.is_warm("phi4") for _ in range(20))) == [True] * 20
            assert await probe.is_warm("phi4")
        assert len(server.received) == 1


async def test_what_the_server_is_is_asked_first_the_next_time():
    async with RawServer(answering(api_ps={"models": [{"name": "phi4"}]})) as server:
        async with WarmProbe(server.url, seconds=30, good_for=0) as probe:
            assert await probe.is_warm("phi4")
            assert await probe.is_warm("phi4")
        assert [each.path for each in server.received] == ["/running", "/api/ps", "/api/ps"]


async def test_bug_the_probe_ignores_the_callers_context_so_a_cancelled_chain_waits_for_it():
    arrived = asyncio.Event()

    async def never(_: Exchange) -> None:
        arrived.set()
        await asyncio.Event().wait()

    async with RawServer(never) as server:
        local = ScriptedClient([say("12")])
        chain = EscalationChain(["phi4"], local=local, verifier=Verdicts(True), warm_url=server.url)
        running = asyncio.ensure_future(chain.run(ChainRequest("Count.")))
        await arrived.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert local.requests == []
        await chain.aclose()


async def test_bug_the_probe_also_runs_for_cloud_tiers():
    async with RawServer(answering(running={"running": []})) as server:
        chain = EscalationChain(
            [LARGE], cloud=ScriptedClient([say("13")]), warm_url=server.url, prefer_warm=True
        )
        result = await chain.run(ChainRequest("Count."))
        assert (result.attempts[0].warm_start, server.received) == (False, [])
        await chain.aclose()


async def test_an_attempt_says_whether_its_model_was_loaded():
    async with RawServer(answering(running={"running": [{"model": "phi4", "state": "ready"}]})) as server:
        local = ScriptedClient([say("1"), say("2")])
        chain = EscalationChain(
            ["qwen3", "ollama/phi4"], local=local, verifier=Verdicts(False, True), warm_url=server.url
        )
        result = await chain.run(ChainRequest("Count."))
        assert [each.warm_start for each in result.attempts] == [False, True]
        await chain.aclose()


async def test_warm_tiers_come_first_where_the_policy_says_so_and_no_cloud_tier_moves():
    async with RawServer(
        answering(running={"running": [{"model": "b", "state": "ready"}, {"model": "d", "state": "ready"}]})
    ) as server:
        entries = ["a", "b", LARGE, "c", "d"]
        chain = EscalationChain(
            entries,
            local=ScriptedClient([say("x")] * 4),
            cloud=ScriptedClient([ValueError("down")]),
            verifier=Verdicts(False, False, False, True),
            warm_url=server.url,
            prefer_warm=True,
        )
        result = await chain.run(ChainRequest("Count."))
        assert [each.model for each in result.attempts] == ["b", "a", LARGE, "d", "c"]
        await chain.aclose()


def test_an_address_that_is_none_is_refused():
    with pytest.raises(ChainInvalid, match="warm_url"):
        WarmProbe("localhost:8080")
