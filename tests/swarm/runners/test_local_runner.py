"""``LocalRunner``: a task done by one model, read like that of any other agent."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from config_kit import Files, files  # noqa: F401 - a fixture
from llm_recordings import events
from llm_server import STREAM_HEAD, Exchange, RawServer, chunk, error_reply, reply, stream_reply

from actors.llm.anthropic.client import AnthropicClient
from actors.llm.openai.client import OpenAIClient
from actors.llm.prices import Price, Prices
from actors.swarm.runners.local import LocalRunner, price_name
from actors.swarm.runners.named import runner_of
from polypod import (
    AgentBusy,
    AgentIdle,
    AgentStarted,
    AgentStopped,
    AssistantMessage,
    EscalationChain,
    LocalModelSection,
    NotTrusted,
    Retry,
    RunEnd,
    RunStart,
    ScriptedClient,
    StreamRestart,
    TextDelta,
    TierAttempted,
    UnknownRunner,
    Usage,
    UserMessage,
    say,
)
from tests.swarm.agent_kit import lines, swarm_in, types
from tests.swarm.runner_kit import KitHost, Reader, launch, names, one


def piece(text: str, **more: Any) -> str:
    return json.dumps({"choices": [{"delta": {"content": text}, **more}]})


STOP = '{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
USAGE = '{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}'
HELLO = stream_reply(events(piece("Hel"), piece("lo"), STOP, USAGE))


def local(server: RawServer, **more: Any) -> LocalRunner:
    return LocalRunner(LocalModelSection(server.url, "m", **more))


async def ran(runner: LocalRunner, folder: Path, *task: str | None, **more: Any) -> list[Any]:
    """All events of an agent that does one task."""
    async with KitHost() as host:
        return await Reader(runner.start(launch(folder, *task, **more), host)).all()


async def test_a_task_is_one_run_with_pieces_one_answer_and_one_end(tmp_path: Path):
    async with RawServer(HELLO) as server:
        seen = await ran(local(server, default_temperature=0.5), tmp_path)
    assert names(seen) == [
        *("AgentStarted", "RunStart", "UserMessage", "TextDelta", "TextDelta", "AssistantMessage", "RunEnd"),
        "AgentStopped",
    ]
    started, answer = one(seen, AgentStarted), one(seen, AssistantMessage)
    assert (started.runner, started.model, started.session) == ("local", "m", "a-1")
    assert answer.item.text == "Hello" == "".join(each.text for each in seen if isinstance(each, TextDelta))
    stopped = one(seen, AgentStopped)
    assert (stopped.reason, stopped.code, stopped.error) == ("exit", 0, None)
    sent = server.received[0].json
    assert (sent["model"], sent["temperature"], sent["stream"]) == ("m", 0.5, True)


async def test_its_runs_cost_nothing_and_have_their_tokens(tmp_path: Path):
    async with RawServer(HELLO) as server:
        end = one(await ran(local(server), tmp_path), RunEnd)
    assert (end.outcome, end.cost, end.usage) == ("finished", 0.0, Usage(7, 3))


async def test_a_chain_costs_what_its_tiers_cost_and_each_is_published(tmp_path: Path):
    small = ScriptedClient([say("Hm", input_tokens=100, output_tokens=100)])
    large = ScriptedClient([say("Hello", input_tokens=7, output_tokens=3)])
    chain = EscalationChain(
        ["gpt-4o", "claude-opus-5"],
        local={"gpt-4o": small},
        cloud=large,
        verifier=lambda *_: (False, "too short"),
    )
    seen = await ran(LocalRunner(chain), tmp_path)
    tiers = [each for each in seen if isinstance(each, TierAttempted)]
    assert [(each.attempt.model, each.attempt.verdict) for each in tiers] == [
        ("gpt-4o", "escalate"),
        ("claude-opus-5", "accept"),
    ]
    assert [each.text for each in seen if isinstance(each, TextDelta)] == ["Hello"], "rejected text is shown"
    end, answer = one(seen, RunEnd), one(seen, AssistantMessage)
    assert (end.outcome, end.usage) == ("finished", Usage(107, 103))
    assert answer.cost == pytest.approx(0.00011)
    assert end.cost == pytest.approx(sum(each.cost or 0 for each in (*tiers, answer)))


async def test_a_model_at_its_vendor_costs_what_the_vendor_asks():
    """That of a server of one's own costs nothing, and of one that nobody knows it is not known."""
    assert (
        price_name(AnthropicClient("https://api.anthropic.com", "claude-opus-5")) == "anthropic/claude-opus-5"
    )
    assert price_name(OpenAIClient("https://api.openai.com/v1"), "gpt-5") == "openai/gpt-5"
    assert price_name(OpenAIClient("http://127.0.0.1:11434/v1", "gpt-5")) is None


async def test_a_client_has_the_price_that_it_is_said_to_have(tmp_path: Path):
    def client() -> ScriptedClient:
        return ScriptedClient([say("Hello", input_tokens=7, output_tokens=3)])

    free = one(await ran(LocalRunner(client()), tmp_path), RunEnd)
    priced = one(await ran(LocalRunner(client(), priced_as="anthropic/claude-opus-5"), tmp_path), RunEnd)
    nobody = one(await ran(LocalRunner(client(), priced_as="mine/m"), tmp_path), RunEnd)
    table = Prices({"mine/m": Price(input=1e6, output=1e6)})
    own = one(await ran(LocalRunner(client(), priced_as="mine/m", prices=table), tmp_path), RunEnd)
    assert (free.cost, priced.cost, nobody.cost, own.cost) == (0.0, pytest.approx(0.00011), None, 10.0)


async def test_an_attempt_that_broke_is_paid_for_too(tmp_path: Path):
    async def breaks(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD, chunk(events(piece("Hi"), USAGE)[:-13]))
        exchange.abort()

    async with RawServer(breaks, HELLO) as server:
        client = OpenAIClient(server.url, "m")
        table = Prices({"mine/m": Price(input=1e6, output=1e6)})
        end = one(await ran(LocalRunner(client, priced_as="mine/m", prices=table), tmp_path), RunEnd)
        await client.aclose()
    assert end.usage.input_tokens is not None
    assert end.usage.input_tokens > 7
    assert end.cost is not None
    assert end.cost > 10.0


@pytest.mark.parametrize(
    "body",
    [
        {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}], "model": "other"},
        {"choices": [{"message": {"role": "assistant", "content": "Hello"}}], "usage": {}},
    ],
    ids=["no role, another model", "empty usage"],
)
async def test_a_reply_without_role_with_empty_usage_or_of_another_model_parses(
    tmp_path: Path, body: dict[str, Any]
):
    async with RawServer(reply(json.dumps(body).encode())) as server:
        seen = await ran(local(server), tmp_path)
    assert one(seen, AssistantMessage).item.text == "Hello"
    assert one(seen, AssistantMessage).model in {body.get("model"), None}
    end = one(seen, RunEnd)
    assert end.outcome == "finished"
    assert (end.usage.input_tokens, end.usage.output_tokens) == (None, None), "unknown, and not zero"


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
async def test_a_server_that_is_busy_is_asked_again_when_it_says(tmp_path: Path, status: str):
    async with RawServer(error_reply(status, "busy", "", "Retry-After: 0"), HELLO) as server:
        seen = await ran(local(server), tmp_path)
    assert one(seen, Retry).attempt == 1
    assert one(seen, RunEnd).outcome == "finished"
    assert len(server.received) == 2


async def test_pieces_of_an_attempt_that_broke_are_void(tmp_path: Path):
    async def breaks(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD, chunk(events(piece("Hi"))[:-13]))
        exchange.abort()

    async with RawServer(breaks, HELLO) as server:
        seen = await ran(local(server), tmp_path)
    assert one(seen, StreamRestart).attempt == 1
    assert [each.text for each in seen if isinstance(each, TextDelta) and each.attempt == 2] == ["Hel", "lo"]
    assert one(seen, AssistantMessage).item.text == "Hello"


WRONG = {
    "refused": ('{"choices":[{"delta":{},"finish_reason":"content_filter"}]}', "refused", "content filter"),
    "cut": ('{"choices":[{"delta":{"content":"Hel"},"finish_reason":"length"}]}', "limit_reached", "max_tok"),
    "empty": (STOP, "failed", "the model's answer is empty"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_an_answer_that_is_none_is_no_success(tmp_path: Path, name: str):
    body, outcome, words = WRONG[name]
    async with RawServer(stream_reply(events(body))) as server:
        seen = await ran(local(server), tmp_path)
    assert one(seen, RunEnd).outcome == outcome
    stopped = one(seen, AgentStopped)
    assert stopped.error is not None
    assert words in stopped.error
    assert stopped.code == 1


async def test_a_server_that_fails_or_a_key_that_is_missing_fails_the_task(tmp_path: Path):
    async with RawServer(error_reply("404 Not Found", "no such model")) as server:
        seen = await ran(local(server), tmp_path)
    assert one(seen, RunEnd).outcome == "failed"
    assert one(seen, RunEnd).cost == 0.0
    error = one(seen, AgentStopped).error
    assert error is not None
    assert error.details["kind"] == "not_found"
    section = LocalModelSection("http://127.0.0.1:9/v1", api_key="env:POLYPOD_NO_SUCH_KEY")
    error = one(await ran(LocalRunner(section), tmp_path), AgentStopped).error
    assert error is not None
    assert error.kind == "MissingKey"
    error = one(await ran(LocalRunner(LocalModelSection("http://no host")), tmp_path), AgentStopped).error
    assert error is not None
    assert "local_model.endpoint" in error


async def test_a_key_is_sent_and_shown_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOCAL_KEY", "sesame-1")
    async with RawServer(HELLO) as server:
        seen = await ran(local(server, api_key="env:LOCAL_KEY"), tmp_path)
        seen += await ran(local(server, api_key="sesame-2"), tmp_path)
    keys = [each.headers["authorization"] for each in server.received]
    assert keys == ["Bearer sesame-1", "Bearer sesame-2"]
    assert "sesame" not in repr(seen)


async def test_an_answer_that_takes_too_long_is_given_up(tmp_path: Path):
    async def hangs(exchange: Exchange) -> None:
        await exchange.wait_until_gone()

    async with RawServer(hangs) as server:
        seen = await ran(local(server, timeout_seconds=0.05), tmp_path)
    assert one(seen, RunEnd).outcome == "failed"
    error = one(seen, AgentStopped).error
    assert error is not None
    assert error.details["kind"] == "timeout"


@pytest.mark.parametrize("way", ["cancel", "stop"])
async def test_a_task_can_be_cancelled_and_its_connection_goes(tmp_path: Path, way: str):
    gone = asyncio.Event()

    async def begins(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD, chunk(events(piece("Hel"))[:-14]))
        await exchange.wait_until_gone()
        gone.set()

    async with RawServer(begins) as server, KitHost() as host, asyncio.timeout(30):
        life = local(server).start(launch(tmp_path), host)
        reader = Reader(life)
        await reader.until(TextDelta)
        with pytest.raises(AgentBusy):
            await life.send("and the docs")
        await getattr(life, way)()
        seen = await reader.all()
        await gone.wait()
    assert one(seen, RunEnd).outcome == "cancelled"
    assert one(seen, RunEnd).cost == 0.0
    assert one(seen, AgentStopped).reason == {"cancel": "cancelled", "stop": "shutdown"}[way]


async def test_one_that_is_resumed_waits_for_words_and_knows_what_was_said(tmp_path: Path):
    log = tmp_path / "events.jsonl"
    earlier = [
        {"type": "user_message", "content": [{"type": "text", "text": "do it"}]},
        {"type": "text_delta", "text": "Do"},
        {"type": "assistant_message", "content": [{"type": "text", "text": "Done"}]},
        {"type": "user_message", "content": [{"type": "text", "text": "and the docs"}]},
    ]
    log.write_text("".join(json.dumps(each) + "\n" for each in earlier) + '{"type": "assist')
    async with RawServer(HELLO) as server, KitHost() as host:
        life = local(server).start(launch(tmp_path, None, resuming=True), host)
        reader = Reader(life)
        await reader.until(AgentStarted, AgentIdle)
        await life.send("and the docs")
        seen = await reader.all()
    assert names(seen) == [
        *("AgentStarted", "AgentIdle", "RunStart", "UserMessage", "TextDelta", "TextDelta"),
        *("AssistantMessage", "RunEnd", "AgentStopped"),
    ]
    sent = [(each["role"], each["content"]) for each in server.received[0].json["messages"]]
    assert sent == [("user", "do it"), ("assistant", "Done"), ("user", "and the docs")]


async def test_it_needs_nothing_but_a_client(tmp_path: Path):
    client = ScriptedClient([say("Hello")])
    seen = await ran(LocalRunner(client), tmp_path, "say it")
    assert [each.item.text for each in seen if isinstance(each, UserMessage)] == ["say it"]
    assert one(seen, AssistantMessage).item.text == "Hello"
    assert isinstance(seen[1], RunStart)


# -- in a swarm --------------------------------------------------------------------------------------------


def blocks(out: list[dict[str, Any]]) -> list[str]:
    """The texts of all assistant blocks, as readers join them."""
    said = [each["message"]["content"] for each in out if each["type"] == "assistant"]
    return [block["text"] for content in said for block in content if block["type"] == "text"]


async def test_stdout_log_has_deltas_then_one_consolidated_block_then_the_terminator(
    tmp_path: Path,
    files: Files,  # noqa: F811
):
    async with RawServer(HELLO) as server, swarm_in(tmp_path) as swarm:
        files.write(f'[local_model]\nendpoint = "{server.url}"\nmodel = "m"\n')
        agent = await swarm.start("say hello", "local", cwd=files.deep)
        result = await agent.wait()
        out = lines(agent, swarm, "stdout.log")
    assert (result.status, result.text, result.cost, result.usage) == ("done", "Hello", 0.0, Usage(7, 3))
    kinds = [each["type"] for each in out if each["type"] != "user"]
    assert kinds == ["system", "stream_event", "stream_event", "assistant", "result"]
    deltas = [each["event"]["delta"]["text"] for each in out if each["type"] == "stream_event"]
    assert deltas == ["Hel", "lo"]
    last = out[-1]
    assert (last["subtype"], last["is_error"], last["result"]) == ("success", False, "Hello")
    assert (last["total_cost_usd"], last["usage"]["input_tokens"], last["usage"]["output_tokens"]) == (
        0.0,
        7,
        3,
    )


async def test_a_reader_that_joins_all_assistant_blocks_sees_the_text_once(
    tmp_path: Path,
    files: Files,  # noqa: F811
):
    async with RawServer(HELLO) as server, swarm_in(tmp_path) as swarm:
        files.write(f'[local_model]\nendpoint = "{server.url}"\n')
        agent = await swarm.start("say hello", "local", cwd=files.deep)
        await agent.wait()
        assert "".join(blocks(lines(agent, swarm, "stdout.log"))) == "Hello"


@pytest.mark.parametrize("way", ["failure", "cancel"])
async def test_the_terminator_is_written_on_failure_and_cancel_too(
    tmp_path: Path,
    files: Files,  # noqa: F811
    way: str,
):
    async def begins(exchange: Exchange) -> None:
        await exchange.send(STREAM_HEAD, chunk(events(piece("Hel"))[:-14]))
        await exchange.wait_until_gone()

    script = begins if way == "cancel" else error_reply("400 Bad Request", "no")
    async with RawServer(script) as server, swarm_in(tmp_path) as swarm:
        files.write(f'[local_model]\nendpoint = "{server.url}"\n')
        agent = await swarm.start("say hello", "local", cwd=files.deep)
        if way == "cancel":
            async with agent.events() as seen:
                async for event in seen:
                    if isinstance(event, TextDelta):
                        break
            await agent.cancel()
        result = await agent.wait()
        out = lines(agent, swarm, "stdout.log")
        assert types(agent, swarm, "stdout.log").count("result") == 1
    assert result.status == {"failure": "failed", "cancel": "killed"}[way]
    assert (out[-1]["type"], out[-1]["is_error"]) == ("result", True)


async def test_without_an_endpoint_there_is_no_local_runner(
    tmp_path: Path,
    files: Files,  # noqa: F811
):
    for text in ("", '[local_model]\nendpoint = ""\nmodel = "m"\n'):
        files.write(text)
        async with swarm_in(tmp_path) as swarm:
            with pytest.raises(UnknownRunner, match=r"no local model.*\[local_model\] endpoint"):
                await swarm.start("say hello", "local", cwd=files.deep)
    with pytest.raises(UnknownRunner, match="no local model"):
        runner_of("local")


async def test_a_runner_of_a_projects_file_is_not_started_until_a_person_has_looked(
    tmp_path: Path,
    files: Files,  # noqa: F811
):
    files.write('[[runner]]\nname = "mine"\ncommand = ["touch", "started"]\n')
    async with swarm_in(tmp_path) as swarm:
        with pytest.raises(NotTrusted, match="runner 'mine' starts: touch started"):
            await swarm.start("say hello", "mine", cwd=files.deep)
        assert await swarm.agents() == []
    assert not (files.deep / "started").exists()


async def test_an_agent_whose_runner_is_trusted_no_more_is_listed_and_refuses_to_be_resumed(
    tmp_path: Path,
    files: Files,  # noqa: F811
):
    async with RawServer(HELLO) as server:
        files.write(f'[local_model]\nendpoint = "{server.url}"\n')
        async with swarm_in(tmp_path) as swarm:
            agent = await swarm.start("say hello", "local", cwd=files.deep)
            await agent.wait()
        files.write('[local_model]\nendpoint = "http://example.com/v1"\n')
        async with swarm_in(tmp_path) as swarm:
            [again] = await swarm.agents()
            with pytest.raises(NotTrusted, match="another machine"):
                await again.resume()
