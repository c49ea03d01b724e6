"""``Classifier``: which agent a task should go to, as a model or a command says, or a refusal."""

import asyncio
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from llm_server import Exchange, RawServer, error_reply, reply

from actors.llm.openai.client import OpenAIClient
from actors.routing.classifier import Classifier
from polypod import Classification, ClassificationRefused, ModelError, ScriptedClient, SystemStatus, say

CHOSEN = {"agent_type": "claude", "model": "opus", "reason": "it is hard"}
FOUND = Classification("claude", "opus", "it is hard")


def answered(text: str, **more: Any) -> bytes:
    body = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], **more}
    return reply(json.dumps(body).encode())


def program(folder: Path, text: str) -> str:
    """The path of a program that does so."""
    path = folder / "classify"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def saying(folder: Path, *values: Any) -> str:
    """A program that prints these."""
    out = folder / "out.json"
    out.write_text("\n".join(each if isinstance(each, str) else json.dumps(each) for each in values))
    return program(folder, f"cat > {folder}/asked; touch {folder}/started; cat {out}")


async def by_server(*scripts: Any, **more: Any) -> tuple[Classification, RawServer]:
    """What a classifier says whose client has a server with these scripts."""
    async with RawServer(*scripts) as server:
        client = OpenAIClient(server.url, "small", streaming=False)
        try:
            return await Classifier(client, **more).classify("fix", "Fix the tests"), server
        finally:
            await client.aclose()


async def by_text(text: str, status: SystemStatus = SystemStatus(), **more: Any) -> Classification:  # noqa: B008
    """What a classifier makes of what a model says."""
    return await Classifier(ScriptedClient([say(text)]), **more).classify("fix", "Fix it", status)


async def test_a_client_is_asked_for_a_json_object():
    found, server = await by_server(answered(json.dumps(CHOSEN)), agents=["claude", "local"])
    assert found == FOUND
    sent = server.received[0].json
    assert sent["response_format"] == {"type": "json_object"}
    words = json.dumps(sent["messages"])
    assert "Fix the tests" in words
    assert "- claude: 0 tasks" in words


async def test_the_client_wins_over_the_command_which_is_not_started(tmp_path: Path):
    command = saying(tmp_path, {"response": json.dumps({"agent_type": "gemini"})})
    found, _ = await by_server(answered(json.dumps(CHOSEN)), command=[command])
    assert found == FOUND
    assert not (tmp_path / "started").exists()


async def test_without_a_client_the_command_is_started_and_its_response_is_the_answer(tmp_path: Path):
    command = saying(
        tmp_path, "Loaded cached credentials.", {"response": f"```json\n{json.dumps(CHOSEN)}\n```"}
    )
    found = await Classifier(command=[command], agents=["claude"]).classify("fix", "Fix the tests")
    assert found == FOUND
    assert "Fix the tests" in (tmp_path / "asked").read_text()


async def test_a_command_may_be_a_line_and_has_no_variables_but_those_that_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GEMINI_API_KEY", "sesame")
    monkeypatch.setenv("OTHER_SECRET", "sesame")
    path = program(tmp_path, f'env > {tmp_path}/env; echo "$1" > {tmp_path}/arg; cat {tmp_path}/out')
    (tmp_path / "out").write_text(json.dumps({"response": CHOSEN}))
    assert await Classifier(command=f"{path} --json").classify("fix", "Fix it") == FOUND
    assert (tmp_path / "arg").read_text() == "--json\n"
    given = (tmp_path / "env").read_text()
    assert "GEMINI_API_KEY=sesame" in given
    assert "OTHER_SECRET" not in given


COMMANDS = {
    "fails": ("echo 'no login' >&2; exit 41", "ended with code 41: no login"),
    "prints nothing": ("exit 0", "ended with code 0: it printed nothing"),
    "prints another thing": ('echo \'{"error": "quota"}\'', 'code 0: {"error": "quota"}'),
    "answers and fails": ('echo \'{"response": "{}"}\'; exit 1', "ended with code 1"),
}


@pytest.mark.parametrize("name", COMMANDS)
async def test_a_command_that_gives_no_answer_refuses_with_its_last_words(tmp_path: Path, name: str):
    text, words = COMMANDS[name]
    with pytest.raises(ClassificationRefused) as caught:
        await Classifier(command=[program(tmp_path, text)]).classify("fix", "Fix it")
    assert words in str(caught.value)


async def test_a_command_that_is_not_there_or_takes_too_long_refuses(tmp_path: Path):
    with pytest.raises(ClassificationRefused, match="cannot be started"):
        await Classifier(command=["/no/such/program"]).classify("fix", "Fix it")
    slow = program(tmp_path, f"echo $$ > {tmp_path}/pid; sleep 1000")
    with pytest.raises(ClassificationRefused, match=r"within 0\.5 s"):
        await Classifier(command=[slow], timeout=0.5).classify("fix", "Fix it")
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(CHOSEN),
        f"```json\n{json.dumps(CHOSEN)}\n```",
        f"```\n{json.dumps(CHOSEN)}\n```\nThat is best.",
        f"Of course! {json.dumps(CHOSEN)} and not {json.dumps({'agent_type': 'gemini'})}",
        f"<think>{{'a'}} perhaps {{}} </think>{json.dumps({**CHOSEN, 'sure': True})}",
        json.dumps([CHOSEN]),
    ],
    ids=["alone", "fence", "fence and words", "the first of two", "thoughts", "a list of one"],
)
async def test_a_server_that_ignores_response_format_has_fences_stripped_and_the_first_object_taken(
    text: str,
):
    assert await by_text(text, agents=["claude"]) == FOUND


async def test_what_is_not_said_is_empty():
    assert await by_text('{"agent_type": " local ", "model": null}') == Classification("local")


async def test_an_agent_that_is_not_known_is_refused_with_those_that_are():
    with pytest.raises(ClassificationRefused, match=r"named 'gpt'.*the agents are claude, local"):
        await by_text('{"agent_type": "gpt"}', agents=["claude", "local"])
    assert (await by_text('{"agent_type": "gpt"}')).agent_type == "gpt", "without a list all are taken"


async def test_a_model_that_a_program_would_take_for_an_option_is_refused():
    with pytest.raises(ClassificationRefused, match="named '--yolo', which is not a model"):
        await by_text('{"agent_type": "gemini", "model": " --yolo"}')


async def test_an_agent_that_is_limited_now_is_refused_and_one_whose_limit_has_ended_is_not():
    now = time.time()
    with pytest.raises(ClassificationRefused, match="rate-limited by its provider right now"):
        await by_text(json.dumps(CHOSEN), SystemStatus(rate_limited={"claude": now + 60}))
    assert await by_text(json.dumps(CHOSEN), SystemStatus(rate_limited={"claude": now - 1})) == FOUND


@pytest.mark.parametrize("text", ["", "claude", "{}", "[]", '{"agent_type": 5}', '{"agent_type": ""}', '{"a'])
async def test_an_answer_without_an_agent_is_refused(text: str):
    with pytest.raises(ClassificationRefused):
        await by_text(text or " ", agents=["claude"])


async def test_the_model_is_shown_what_is_known(tmp_path: Path):
    client = ScriptedClient([say(json.dumps(CHOSEN))])
    status = SystemStatus(active_tasks={"claude": 3}, rate_limited={"gemini": time.time() + 60})
    agents = {"claude": "hard tasks", "gemini": "", "local": "small tasks"}
    await Classifier(client, agents=agents).classify("fix", "Fix " + "x" * 20_000, status, "codex")
    asked = client.requests[0].items[0].text
    assert "- claude (hard tasks): 3 tasks\n" in asked
    assert "- gemini: 0 tasks, limited now: do not choose it\n" in asked
    assert "Wished for: codex" in asked
    assert len(asked) < 10_000


async def test_a_reply_without_role_with_empty_usage_and_of_another_model_parses():
    found, _ = await by_server(answered(json.dumps(CHOSEN), usage={}, model="another"))
    assert found == FOUND


async def test_a_busy_server_is_asked_again_and_one_that_fails_is_an_error():
    busy = error_reply("429 Too Many Requests", "slow down", "", "Retry-After: 0")
    found, server = await by_server(busy, answered(json.dumps(CHOSEN)))
    assert found == FOUND
    assert len(server.received) == 2
    with pytest.raises(ModelError):
        await by_server(error_reply("401 Unauthorized", "who are you"))


async def test_a_server_that_hangs_is_given_up():
    async def hangs(exchange: Exchange) -> None:
        await exchange.wait_until_gone()

    with pytest.raises(ModelError) as caught:
        await by_server(hangs, timeout=0.05)
    assert caught.value.kind == "timeout"


async def test_there_has_to_be_a_client_or_a_command():
    with pytest.raises(ClassificationRefused, match="neither a client nor a command"):
        await Classifier().classify("fix", "Fix it")


async def test_many_are_classified_at_once_with_no_pool_and_no_store():
    client = ScriptedClient([say(json.dumps(CHOSEN))] * 20)
    classifier = Classifier(client)
    found = await asyncio.gather(*(classifier.classify(f"t{n}", "Fix it") for n in range(20)))
    assert found == [FOUND] * 20
