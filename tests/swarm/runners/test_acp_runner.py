"""Programs that speak the Agent Client Protocol: turns, cancels, sessions, and permissions that a person gives."""

import asyncio
import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from extras import skip_without

from actors.runtime.children.launcher import Launcher
from actors.swarm.runners.acp_format import AcpTranslator
from actors.swarm.runners.acp_models import Model, find_model, models_of
from actors.swarm.runners.base import Answer, Permission, Runner
from actors.swarm.runners.named import runner_of
from actors.swarm.runners.stream import Recorder
from polypod import (
    AgentActivity,
    AgentBusy,
    AgentIdle,
    AgentOutput,
    AgentStarted,
    AgentStopped,
    AssistantMessage,
    RunEnd,
    TextDelta,
    ThinkingPart,
    ToolResulted,
    ToolStart,
    Usage,
)
from tests.swarm.runner_kit import KitHost, Reader, launch, names, one
from tests.swarm.runners.recordings import ends, texts

skip_without("acp", "acp")
AGENT = Path(__file__).parents[1] / "programs" / "acp_agent.py"
#: By what name the helper of the launcher here is asked for that program.
FORKED = "acp-agent"


def acp(*how: str) -> Runner:
    return runner_of("acp:" + shlex.join([FORKED, *how]))


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    """One that has the SDK imported: a child is forked with it."""
    launcher = Launcher(prepare="swarm.programs.acp_agent:prepare")
    yield launcher
    asyncio.run(launcher.aclose())


async def test_an_agent_does_turns_in_one_session(tmp_path: Path):
    runner = runner_of("acp:" + shlex.join([sys.executable, str(AGENT)]))
    async with KitHost() as host:
        life = runner.start(launch(tmp_path, "one"), host)
        reader = Reader(life)
        await reader.until(AgentStarted, AgentIdle)
        await life.send("two")
        await reader.until(RunEnd, RunEnd, AgentIdle)
        await life.stop()
        events = await reader.all()
    assert one(events, AgentStarted).session == life.session == "s-new"
    assert texts(events) == ["did one", "did two"]
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["did ", "one", "did ", "two"]
    end = next(event for event in events if isinstance(event, RunEnd))
    assert (end.outcome, end.usage) == ("finished", Usage(9, 3, 5))
    assert one(events, AgentOutput).text == "this is not a message"
    assert one(events, AgentStopped).reason == "shutdown"


async def test_an_agent_goes_on_with_its_session_and_repeats_nothing(tmp_path: Path, launcher: Launcher):
    async with KitHost(launcher=launcher) as host:
        life = acp().start(launch(tmp_path, None, session="s-7", resuming=True), host)
        reader = Reader(life)
        events = await reader.until(AgentIdle)
        assert one(events, AgentStarted).session == "s-7"
        await life.send("more")
        await reader.until(RunEnd)
        await life.stop()
        assert texts(await reader.all()) == ["did more"]


async def test_an_agent_that_forgets_its_sessions_says_so(tmp_path: Path, launcher: Launcher):
    async with KitHost(launcher=launcher) as host:
        runner = acp("forgets")
        events = await Reader(runner.start(launch(tmp_path, None, session="s-7", resuming=True), host)).all()
    assert "cannot continue a session" in (one(events, AgentStopped).error or "")


@pytest.mark.parametrize("wanted", ["v/large", "large", "Large"])
async def test_an_agent_uses_the_model_that_is_wanted(tmp_path: Path, wanted: str, launcher: Launcher):
    async with KitHost(launcher=launcher) as host:
        life = acp("models").start(launch(tmp_path, "one", model=wanted), host)
        reader = Reader(life)
        await reader.until(RunEnd)
        await life.stop()
        assert "m=v/large did one" in "".join(texts(await reader.all()))


@pytest.mark.parametrize(
    ("how", "more", "said"),
    [
        ("models", {"model": "nope"}, "has no model 'nope'; it has v/small, v/large"),
        ("plain", {"model": "large"}, "does not offer a choice of models"),
        ("models", {"provider": "v"}, "does not take a provider"),
    ],
)
async def test_a_model_or_provider_that_cannot_be_had_is_an_error(
    tmp_path: Path, how: str, more: dict[str, str], said: str, launcher: Launcher
):
    async with KitHost(launcher=launcher) as host:
        events = await Reader(acp(how).start(launch(tmp_path, **more), host)).all()
    error = one(events, AgentStopped).error
    assert error is not None
    assert said in f"{error.message}; {error.hint}"


#: An agent of before options: it offers ``models``, and says which of them was set.
OLDER = """
import json, sys
model = None
for line in sys.stdin:
    asked = json.loads(line)
    method, params = asked.get("method"), asked.get("params") or {}
    result = {}
    if method == "initialize":
        result = {"protocolVersion": 1}
    elif method == "session/new":
        models = [{"modelId": "g-flash", "name": "Flash"}, {"modelId": "g-pro", "name": "Pro"}]
        result = {"sessionId": "s-old", "models": {"availableModels": models, "currentModelId": "g-flash"}}
    elif method == "session/set_model":
        model = (params["sessionId"], params["modelId"])
    elif method == "session/prompt":
        said = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": str(model)}}
        update = {"sessionId": "s-old", "update": said}
        print(json.dumps({"jsonrpc": "2.0", "method": "session/update", "params": update}), flush=True)
        result = {"stopReason": "end_turn"}
    if "id" in asked:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""


async def test_an_agent_of_before_options_uses_the_model_that_is_wanted_too(tmp_path: Path):
    runner = runner_of("acp:" + shlex.join([sys.executable, "-c", OLDER]))
    async with KitHost() as host:
        life = runner.start(launch(tmp_path, "one", model="pro"), host)
        reader = Reader(life)
        await reader.until(RunEnd)
        await life.stop()
        assert texts(await reader.all()) == ["('s-old', 'g-pro')"]


def test_models_of_older_agents_are_found_too():
    models = models_of({"models": {"availableModels": [{"modelId": "g-pro", "name": "Pro"}, {"x": 1}, 3]}})
    assert find_model(models, "pro") == Model("g-pro", "Pro")
    assert find_model(models, "") is None
    groups = [{"group": "g", "options": [{"value": "a/b", "name": "B"}]}]
    options = [{"id": "m", "category": "model", "options": groups}, {"id": "x", "category": "mode"}]
    assert models_of({"configOptions": options}) == [Model("a/b", "B", "m")]


async def test_an_agent_that_wants_a_login_says_so(tmp_path: Path, launcher: Launcher):
    async with KitHost(launcher=launcher) as host:
        events = await Reader(acp("locked").start(launch(tmp_path), host)).all()
    error = one(events, AgentStopped).error
    assert error is not None
    assert error.details["kind"] == "auth"
    assert ends(events) == ["failed"]


async def test_a_turn_is_cancelled_and_the_agent_goes_on(tmp_path: Path, launcher: Launcher):
    async with KitHost(launcher=launcher) as host:
        life = acp().start(launch(tmp_path, "wait"), host)
        reader = Reader(life)
        await reader.until(TextDelta)
        with pytest.raises(AgentBusy):
            await life.send("now")
        await life.cancel()
        await reader.until(AgentIdle)
        await life.send("next")
        await reader.until(RunEnd, RunEnd)
        await life.stop()
        events = await reader.all()
    assert ends(events) == ["cancelled", "finished"]
    cut = [event.item for event in events if isinstance(event, AssistantMessage)]
    assert [(item.text, item.cut) for item in cut] == [("waiting", True), ("did next", False)]


@pytest.mark.parametrize(
    ("answer", "chosen"),
    [
        (Answer(approved=True), "yes"),
        (Answer(approved=True, always=True), "ever"),
        (Answer(approved=False), "no"),
        (Answer(approved=False, always=True), "no"),
        (Answer(approved=True, arguments={"path": "b.txt"}), "no"),
    ],
)
async def test_a_permission_is_what_a_person_gives(
    tmp_path: Path, launcher: Launcher, answer: Answer, chosen: str
):
    async def person(_: Permission) -> Answer:
        return answer

    async with KitHost(person, launcher=launcher) as host:
        life = acp().start(launch(tmp_path, "edit"), host)
        reader = Reader(life)
        await reader.until(RunEnd)
        await life.stop()
        events = await reader.all()
        [asked] = host.asked
    assert (asked.tool, asked.call_id, asked.why) == ("edit", "call-1", "Edit a.txt")
    assert "-old\n+new\n" in asked.arguments["diffs"][0]
    assert texts(events) == ["I edit.", f"answer: {chosen}"]
    item = next(event.item for event in events if isinstance(event, AssistantMessage))
    assert isinstance(item.content[0], ThinkingPart)
    assert item.calls[0].arguments["path"] == "a.txt"
    assert one(events, ToolStart).name == "edit"
    result = one(events, ToolResulted).item
    assert result.is_error == (chosen == "no")
    assert "-old\n+new\n" in result.text


@contextlib.asynccontextmanager
async def with_open_question(folder: Path, launcher: Launcher):
    """A life whose agent has asked what nobody answers, and what it does."""
    asked = asyncio.Event()

    async def nobody(_: Permission) -> Answer:
        asked.set()
        return await asyncio.Event().wait()  # type: ignore[return-value]

    async with KitHost(nobody, launcher=launcher) as host:
        life = acp().start(launch(folder, "edit"), host)
        reader = Reader(life)
        await asked.wait()
        yield life, reader


async def test_a_question_that_is_open_ends_with_its_turn(tmp_path: Path, launcher: Launcher):
    async with with_open_question(tmp_path, launcher) as (life, reader):
        await life.cancel()
        await reader.until(AgentIdle)
        await life.stop()
        assert ends(await reader.all()) == ["cancelled"]


async def test_a_task_that_is_stopped_while_a_question_is_open_has_not_failed(
    tmp_path: Path, launcher: Launcher
):
    async with with_open_question(tmp_path, launcher) as (life, reader):
        await life.stop()
        events = await reader.all()
    assert ends(events) == ["cancelled"]
    assert one(events, RunEnd).error is None


async def test_an_error_of_the_agent_and_a_refusal_are_no_success(tmp_path: Path, launcher: Launcher):
    async with KitHost(launcher=launcher) as host:
        life = acp().start(launch(tmp_path, "fail"), host)
        reader = Reader(life)
        events = await reader.until(AgentIdle)
        assert "the model broke" in (one(events, RunEnd).error or "")
        await life.send("refuse")
        await reader.until(RunEnd, RunEnd)
        await life.stop()
        assert ends(await reader.all()) == ["failed", "refused"]


async def test_a_program_that_speaks_something_else_is_an_error(tmp_path: Path, launcher: Launcher):
    async with KitHost(launcher=launcher) as host:
        events = await Reader(runner_of("acp:echo hello").start(launch(tmp_path), host)).all()
    assert one(events, AgentOutput).text == "hello"
    assert "ended before it had a session" in (one(events, AgentStopped).error or "")
    assert ends(events) == ["failed"]


def test_updates_of_kinds_and_types_that_are_not_known_are_passed_over():
    recorder = Recorder("a-1")
    recorder.begin_run("hi")
    translator = AcpTranslator(recorder)
    for update in (
        {},
        {"sessionUpdate": "weather"},
        {"sessionUpdate": "agent_message_chunk", "content": [1]},
        {"sessionUpdate": "plan", "entries": [{"content": 3, "status": "in_progress"}, None]},
    ):
        assert not list(translator.translate(update))
    plan = {"sessionUpdate": "plan", "entries": [{"content": "tests", "status": "in_progress"}]}
    [event] = translator.translate(plan)
    assert isinstance(event, AgentActivity)
    assert event.activity == "tests"
    assert names(list(translator.end("end_turn", {}))) == ["RunEnd"]
