"""Commands in the background go on beside the pod, notify it of their end, and end with it."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from process_kit import DEAF, marked
from shell_kit import Model, begin, look, manifest, marking, stop, texts

from actors.llm.scripted import call, say
from actors.pod.handle import Pod
from actors.system import PodSystem
from protocol.errors import PodStopped
from protocol.events import RunEnd, ToolResulted, UserMessage

KINDS = [ToolResulted, UserMessage, RunEnd]
SLEEP = "echo up; sleep 1000"


async def shown_to_model(*steps: Any, runs: int = 1, **options: Any) -> list[str]:
    """What a pod's model is shown until so many of its runs have ended, after the words that began the first."""
    async with PodSystem(**options) as system:
        pod = await system.spawn(manifest(), client=Model(*steps))
        with pod.subscribe(KINDS) as events:
            pod.run("go")
            events_seen: list[Any] = []
            async for event in events:
                events_seen.append(event)
                if sum(isinstance(each, RunEnd) for each in events_seen) == runs:
                    break
        return texts(events_seen)[1:]


async def test_a_command_in_the_background_goes_on_is_looked_at_and_stopped(mark: str) -> None:
    said = await shown_to_model(begin(marking(mark, SLEEP)), look(), look(0.05), stop, look(), say("done"))
    assert said == [
        "up\n[continues in the background as ID-1]",
        "[still running]",
        "[still running]",
        "[ended by SIGTERM]",
        "[ended by SIGTERM]",
    ]
    assert not marked(mark)


async def test_a_look_waits_for_news_or_the_end(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    command = f"exec 3<>{gate}; read x <&3; echo $x; read x <&3; exit 4"

    def opened(text: str) -> Any:
        def step(name: str) -> Any:
            asyncio.get_running_loop().run_in_executor(None, gate.write_text, text)
            return look(60)(name)

        return step

    assert await shown_to_model(begin(command), opened("one\n"), opened("two\n"), say("done")) == [
        "[continues in the background as ID-1]",
        "one\n[still running]",
        "[exit code 4]",
    ]


async def test_its_end_reaches_a_pod_that_is_idle_and_begins_a_run_there(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    async with PodSystem() as system:
        pod = await system.spawn(
            manifest(), client=Model(begin(f"read x < {gate}; echo $x; exit 2"), say("a"), say("b"))
        )
        await pod.run("go")
        with pod.subscribe([UserMessage, RunEnd]) as events:
            gate.write_text("done\n")
            notified = await anext(events)
            ended = await anext(events)
    assert isinstance(notified, UserMessage)
    assert isinstance(ended, RunEnd)
    assert notified.source == "notify"
    words = f"[background command ID-1 has ended: exit code 2]\n$ read x < {gate}; echo $x; exit 2\ndone"
    assert texts([notified]) == [words]


async def test_its_end_joins_a_run_that_goes_on_and_much_output_is_left_for_a_look(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    hold = tmp_path / "hold"
    os.mkfifo(hold)
    async with PodSystem() as system:
        model = Model(
            begin(f"read x < {gate}; seq 5000"),
            call("shell", {"command": f"echo x > {gate}; read x < {hold}"}),
            look(),
            say("done"),
        )
        pod = await system.spawn(manifest(), client=model)
        with pod.subscribe(KINDS) as events:
            running = pod.run("go")
            events_seen = [await anext(events) for _ in range(2)]  # the words that began the run, and the id
            await the_command(pod).wait()
            await asyncio.to_thread(hold.write_text, "\n")
            await running
            events_seen += events.drain()
    shown = texts(events_seen)
    assert shown[2] == "[exit code 0]"
    assert shown[3].startswith("[background command ID-1 has ended: exit code 0]")
    assert "of output with shell_output" in shown[3]
    assert shown[4].startswith("1\n2\n3\n")


async def test_who_has_seen_the_end_is_not_notified_once_more(mark: str) -> None:
    said = await shown_to_model(begin(marking(mark, "sleep 0.3")), look(60), say("done"))
    assert said == ["[continues in the background as ID-1]", "[exit code 0]"]


async def test_what_ends_at_once_is_reported_at_once() -> None:
    assert await shown_to_model(begin("echo no; exit 3"), say("done")) == ["no\n[exit code 3]"]


async def test_a_time_is_kept_in_the_background_where_one_is_given(mark: str) -> None:
    said = await shown_to_model(begin(marking(mark, SLEEP), timeout=0.3), look(60), look(60), say("done"))
    assert said[-1] == "[not done after 0.3 s, so it was stopped: ended by SIGTERM]"


async def test_ids_that_mean_nothing_are_answered_in_words() -> None:
    def other(name: str) -> Any:
        return call("shell_output", {"id": name[:4] + "-7"})

    unknown, earlier = (
        call("shell_stop", {"id": "x\udcffy"}) if False else call("shell_stop", {"id": "web"}),
        call("shell_output", {"id": "zzzz-1"}),
    )
    said = await shown_to_model(unknown, earlier, begin(SLEEP), other, stop, say("done"))
    assert said[0] == "there is no background command 'web'; known: none"
    assert "is no longer running: it ended with the earlier process" in said[1]
    assert said[3] == "there is no background command 'ID-7'; known: ID-1"


async def test_after_a_resume_an_id_of_the_former_process_is_answered_in_true_words(
    tmp_path: Path, mark: str
) -> None:
    store = f"sqlite:{tmp_path / 'pods.db'}"
    async with PodSystem(store=store) as system:
        pod = await system.spawn(manifest(), client=Model(begin(marking(mark, SLEEP)), say("a")))
        session = (await pod.run("go")).session_id
    assert not marked(mark)
    async with PodSystem(store=store) as system:
        pod = await system.spawn(manifest(), resume=session, client=Model(look(), say("b")))
        with pod.subscribe(ToolResulted) as events:
            await pod.run("and now?")
            (result,) = texts(events.drain())
    assert result.startswith("ID-1 is no longer running: it ended with the earlier process")


@pytest.mark.parametrize("how", ["stop", "leave", "fail"])
async def test_commands_in_the_background_end_with_the_pod(how: str, mark: str) -> None:
    command = marking(mark, f"{DEAF} (setsid sleep 1000 &) ; echo up; while true; do sleep 1; done")
    async with PodSystem() as system:
        pod = await system.spawn(manifest(), client=Model(begin(command), say("done")))
        await pod.run("go")
        assert marked(mark)
        if how == "stop":
            await pod.stop()
            assert not marked(mark)
        elif how == "fail":
            pod.ref.actor.end_by_defect(RuntimeError("a defect"))  # type: ignore[attr-defined]
            with pytest.raises(PodStopped):
                await pod.run("again")
    assert not marked(mark)


async def test_a_cancel_of_the_run_leaves_what_is_in_the_background_alone(mark: str) -> None:
    async with PodSystem() as system:
        pod = await system.spawn(
            manifest(), client=Model(begin(marking(mark, SLEEP)), look(60), look(60), say("x"))
        )
        with pod.subscribe(ToolResulted) as events:
            running = pod.run("go")
            await anext(events)
            await pod.cancel()
            await running
        assert marked(mark)
    assert not marked(mark)


async def test_no_more_than_so_many_are_at_work_in_the_background(mark: str) -> None:
    said = await shown_to_model(*(begin(marking(mark, "sleep 1000")) for _ in range(17)), say("done"))
    assert said[15] == "[continues in the background as ID-16]"
    assert said[16].startswith("the limit of 16 background commands is reached: ID-1, ")


def the_command(pod: Pod) -> Any:
    """The command that a pod has in the background."""
    (command,) = pod.ref.actor.resources.commands._by_id.values()  # type: ignore[attr-defined]
    return command
