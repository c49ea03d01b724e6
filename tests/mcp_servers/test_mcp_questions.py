"""What servers ask people in the middle of a call goes the way of approvals."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp_kit import at, at_a_port, calls, having, raw

from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.approvals.forms import checked_form
from actors.pod.handle import Pod
from actors.system import PodSystem
from protocol.errors import AlreadyResolved, InvalidInput
from protocol.events import ApprovalRequested, ApprovalResolved
from protocol.items import ToolResult

#: A server of each generation, its tool that asks, and the field that it asks for.
SERVERS = pytest.mark.parametrize(
    ("server", "tool", "field"),
    [("raw", "raw__ask", "town"), ("sdk", "sdk__ask", "name")],
    indirect=["server"],
)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, dict[str, Any]]]:
    with at_a_port("newer") as url:
        yield {"raw": raw(timeout=5), "sdk": at(url, timeout=5)}


@pytest.fixture
def server(request: pytest.FixtureRequest, servers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return servers[request.param]


async def results(pod: Pod) -> list[ToolResult]:
    return [item for item in await pod.history() if isinstance(item, ToolResult)]


async def start(system: PodSystem, server: dict[str, Any], *tools: str, **settings: Any) -> Pod:
    return await system.spawn(having(server, **settings), client=ScriptedClient(calls(*tools)))


@SERVERS
async def test_a_person_answers_with_the_fields_of_a_form(
    server: dict[str, Any], tool: str, field: str
) -> None:
    async with PodSystem() as system:
        pod = await start(system, server, tool)
        with pod.subscribe([ApprovalRequested]) as questions:
            run = pod.run("go")
            question = await anext(questions)
            assert isinstance(question, ApprovalRequested)
            assert question.why == f"MCP server {server['name']!r} asks: which town?"
            assert question.form is not None
            assert list(question.form["properties"]) == [field]
            assert [each.approval_id for each in await system.approvals()] == [question.approval_id]
            with pytest.raises(InvalidInput, match=f"the form requires '{field}'"):
                await pod.approve(question.approval_id)
            with pytest.raises(InvalidInput, match="must be a string"):
                await pod.approve(question.approval_id, arguments={field: 5})
            await pod.approve(question.approval_id, arguments={field: "Oslo"})
            await run
            with pytest.raises(AlreadyResolved):
                await pod.deny(question.approval_id)
        assert "Oslo" in (await results(pod))[0].text
        assert await system.approvals() == []


async def test_the_server_checks_arguments_that_a_person_gives_as_it_does_the_models(
    servers: dict[str, dict[str, Any]],
) -> None:
    replies = [call("sdk__add", {"a": "one", "b": 2}), call("sdk__add", {"a": 1, "b": 2}), say("done")]
    rules = [{"tool": "sdk__add", "match": {"b": 2, "a": 1}, "policy": "ask"}]
    async with PodSystem() as system:
        manifest = having(servers["sdk"], approval=rules)
        pod = await system.spawn(manifest, client=ScriptedClient(replies))
        with pod.subscribe([ApprovalRequested]) as questions:
            run = pod.run("go")
            question = await anext(questions)
            assert isinstance(question, ApprovalRequested)
            await pod.approve(question.approval_id, arguments={"a": "one", "b": 2})
            await run
        models, persons = await results(pod)
    assert models.is_error
    assert "integer" in models.text
    changed = 'A person changed the arguments; it ran with {"a":"one","b":2}'
    assert (persons.is_error, persons.text) == (True, f"{models.text}\n{changed}")


@SERVERS
async def test_a_question_that_is_denied_is_declined(server: dict[str, Any], tool: str, field: str) -> None:
    async with PodSystem() as system:
        pod = await start(system, server, tool)
        with pod.subscribe([ApprovalRequested]) as questions:
            run = pod.run("go")
            await pod.deny((await anext(questions)).approval_id)  # type: ignore[union-attr]
            await run
        assert "decline" in (await results(pod))[0].text


@SERVERS
async def test_where_nobody_listens_a_question_is_declined(
    server: dict[str, Any], tool: str, field: str
) -> None:
    async with PodSystem() as system:
        pod = await start(system, server, tool)
        await pod.run("go")
        assert "decline" in (await results(pod))[0].text


async def test_a_pause_closes_the_question_and_the_outcome_of_its_call_is_unknown(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path}/pods.db"
    async with PodSystem(store) as system:
        pod = await start(system, raw(timeout=5), "raw__ask")
        pod_run = None
        with pod.subscribe([ApprovalRequested, ApprovalResolved]) as seen:
            pod_run = pod.run("go")
            await anext(seen)
            await pod.pause()
            assert (await pod_run).outcome == "paused"
            resolved = await anext(seen)
            assert isinstance(resolved, ApprovalResolved)
            assert (resolved.by, resolved.approved) == ("run", False)
        assert "outcome unknown" in (await results(pod))[0].text
        assert (await pod.resume()).outcome == "finished"


async def test_a_crash_closes_the_question_and_nothing_is_run_again(tmp_path: Path) -> None:
    async with PodSystem(f"jsonl:{tmp_path}/pods") as system:
        pod = await start(system, raw(timeout=5), "raw__ask")
        with pod.subscribe([ApprovalRequested]) as questions:
            run = pod.run("go")
            question = await anext(questions)
            assert isinstance(question, ApprovalRequested)
            shutil.copytree(tmp_path / "pods", tmp_path / "crashed")  # as a kill at this moment leaves it
            await pod.deny(question.approval_id)
            await run
    async with PodSystem(f"jsonl:{tmp_path}/crashed") as system:
        again = await system.spawn(
            having(raw(timeout=5)), client=ScriptedClient([say("done")]), resume=question.session_id
        )
        assert await system.approvals() == []
        assert (await again.resume()).outcome == "finished"
        (result,) = await results(again)
        assert "outcome unknown" in result.text
        with pytest.raises(AlreadyResolved):
            await again.approve(question.approval_id, arguments={"town": "Oslo"})


async def test_a_cancel_ends_a_call_that_asks() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(having(raw(timeout=5)), client=ScriptedClient([call("raw__ask", {})]))
        with pod.subscribe([ApprovalRequested]) as questions:
            run = pod.run("go")
            await anext(questions)
            await pod.cancel()
            assert (await run).outcome == "cancelled"
        assert await system.approvals() == []


async def test_pods_of_an_older_server_that_asks_come_to_have_connections_of_their_own() -> None:
    async with PodSystem() as system:
        first = await start(system, raw(timeout=5), "raw__ask")
        await first.run("go")  # from now on it is known to ask
        others = [await start(system, raw(timeout=5), "raw__ask") for _ in range(3)]
        towns = ["Oslo", "Bergen", "Tromsø"]
        runs = []
        for pod, town in zip(others, towns, strict=True):
            with pod.subscribe([ApprovalRequested]) as questions:
                runs.append(pod.run("go"))
                question = await anext(questions)
                assert isinstance(question, ApprovalRequested)
                assert question.pod == pod.name
                await pod.approve(question.approval_id, arguments={"town": town})
        await asyncio.gather(*runs)
        texts = [(await results(pod))[0].text for pod in others]
    assert all(
        town in text.encode().decode("unicode_escape") for town, text in zip(towns, texts, strict=True)
    )


def test_an_answer_has_the_types_of_its_form() -> None:
    form = {
        "properties": {
            "n": {"type": "integer"},
            "b": {"type": "boolean"},
            "c": {"type": "string", "enum": ["x"]},
            "f": {"type": "number", "maximum": 1},
            "l": {"type": "array", "items": {"enum": ["x"]}},
            "e": {"type": "string", "format": "email", "minLength": 4},
            "o": {"oneOf": [{"const": {"a": 1}}], "enum": 5, "minimum": "x", "format": 7},
        }
    }
    fits = {"n": 1, "b": True, "c": "x", "f": 0.5, "l": ["x"], "e": "a@bc"}
    assert checked_form(form, fits) == fits
    wrongs: list[dict[str, Any]] = [
        {"n": "1"},
        {"n": True},
        {"b": 1},
        {"c": "y"},
        {"d": 1},
        {"f": 1.5},
        {"o": 1},
    ]
    for wrong in [*wrongs, {"l": ["y"]}, {"l": [[]]}, {"e": "a@b"}, {"e": "abcd"}]:
        with pytest.raises(InvalidInput):
            checked_form(form, wrong)
    assert checked_form({}, {}) == {}
