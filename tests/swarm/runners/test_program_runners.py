"""Programs as agents: from their start to the end of their last process."""

import asyncio
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.swarm.runners.base import Runner, StopWaits
from actors.swarm.runners.named import runner_of
from polypod import (
    AgentBusy,
    AgentIdle,
    AgentNotRunning,
    AgentOutput,
    AgentStarted,
    AgentStopped,
    AssistantMessage,
    RunEnd,
    RunStart,
    TurnStart,
    UnknownRunner,
    UserMessage,
)
from protocol.config import RunnerSection
from tests.swarm.runner_kit import KitHost, Reader, launch, left_in, names, one
from tests.swarm.runners.recordings import FOLDER, ends, texts

PROGRAMS = Path(__file__).parents[1] / "programs"
LISTENING = [sys.executable, "-I", "-S", str(PROGRAMS / "listening.py")]
SHORT = StopWaits(request=0.2, term=0.2)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose sockets have paths that are short enough."""
    with tempfile.TemporaryDirectory(prefix="pp") as name:
        yield Path(name).resolve()


def listening(**more: Any) -> Runner:
    return runner_of("mine", [RunnerSection("mine", tuple(LISTENING), **more)])


def replay(name: str, code: int = 0, *how: str, runner: str = "codex") -> Runner:
    """A runner whose program prints what a real one did."""
    return runner_of(runner, [RunnerSection(runner, replay_command(name, code, *how))])


def replay_command(name: str, code: int, *how: str) -> tuple[str, ...]:
    """Its command: a script, which drops the flags that the real program would get."""
    words = (sys.executable, "-I", "-S", PROGRAMS / "replay.py", FOLDER / f"{name}.jsonl", code, *how)
    handle, script = tempfile.mkstemp(prefix="pp")
    os.write(
        handle,
        f"#!/bin/sh\nrm {script}\nexec {' '.join(shlex.quote(str(each)) for each in words)}\n".encode(),
    )
    os.fchmod(handle, 0o700)
    os.close(handle)
    return (script,)


# -- programs that print our lines -----------------------------------------------------------------


async def test_a_program_does_its_task_waits_and_does_the_next(folder: Path):
    async with KitHost() as host:
        life = runner_of(LISTENING).start(launch(folder, "one", session="s-1"), host)
        reader = Reader(life)
        await reader.until(AgentIdle)
        assert life.pid
        assert life.session == "s-1"
        await life.send("two\n  lines")
        await reader.until(AgentIdle, AgentIdle)
        await life.stop()
        events = await reader.all()
    assert texts(events) == ["did one", "did two\n  lines"]
    assert [event.item.text for event in events if isinstance(event, UserMessage)] == ["one", "two\n  lines"]
    assert ends(events) == ["finished", "finished"]
    stopped = one(events, AgentStopped)
    assert (stopped.reason, stopped.code, stopped.error) == ("shutdown", 0, None)
    assert one(events, AgentStarted).pid
    assert life.pid is None


async def test_a_task_that_begins_with_dashes_is_no_flag(folder: Path):
    async with KitHost() as host:
        life = runner_of(LISTENING).start(launch(folder, "--model x"), host)
        reader = Reader(life)
        await reader.until(AgentIdle)
        await life.stop()
        assert texts(await reader.all()) == ["did --model x"]


async def test_an_agent_that_is_resumed_waits_and_repeats_no_task(folder: Path):
    async with KitHost() as host:
        life = runner_of(LISTENING).start(launch(folder, None, session="s-9", resuming=True), host)
        reader = Reader(life)
        events = await reader.until(AgentIdle)
        assert names(events)[:2] == ["AgentStarted", "AgentIdle"]
        assert one(events, AgentStarted).resumed
        await life.stop()
        assert not ends(await reader.all())


async def test_a_program_has_no_variables_of_ours_but_those_that_it_needs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("MINE", "wanted")
    monkeypatch.setenv("ALSO", "wanted")
    async with KitHost() as host:
        life = listening(env=("MINE",)).start(
            launch(folder, "environment", env=("ALSO",), model="m-1", provider="p-1"), host
        )
        reader = Reader(life)
        await reader.until(AgentIdle)
        await life.stop()
        found = json.loads(texts(await reader.all())[0])
    ours = {
        "PATH",
        "HOME",
        "LANG",
        "TMPDIR",
        "MINE",
        "ALSO",
        "POLYPOD_AGENT_ID",
        "POLYPOD_AGENT_LOG",
        "LC_CTYPE",
    }
    assert set(found["env"]) <= ours
    assert {"MINE", "ALSO", "POLYPOD_AGENT_ID", "POLYPOD_AGENT_LOG"} <= set(found["env"])
    assert found["argv"] == [
        *("--inbox", str(folder / "inbox"), "--cwd", str(folder)),
        *("--model", "m-1", "--provider", "p-1", "--", "environment"),
    ]


async def test_words_for_a_program_that_works_are_refused_and_its_task_can_be_cancelled(folder: Path):
    async with KitHost() as host:
        life = runner_of(LISTENING).start(launch(folder, "wait"), host)
        reader = Reader(life)
        await reader.until(AgentStarted, TurnStart)
        with pytest.raises(AgentBusy):
            await life.send("now")
        await life.cancel()
        await reader.until(AgentIdle)
        await life.send("next")
        await reader.until(RunEnd, RunEnd)
        await life.stop()
        events = await reader.all()
    assert ends(events) == ["cancelled", "finished"]
    assert texts(events) == ["did next"]


async def test_a_cancelled_turn_is_not_repeated_by_an_agent_that_is_revived(folder: Path):
    async with KitHost() as host:
        life = runner_of(LISTENING).start(launch(folder, "wait", session="s-1"), host)
        reader = Reader(life)
        await reader.until(TurnStart)
        await life.cancel()
        await reader.until(AgentIdle)
        await life.stop()
        await reader.all()
        (folder / "inbox").unlink()
        again = runner_of(LISTENING).start(launch(folder, None, session="s-1", resuming=True), host)
        reader = Reader(again)
        await reader.until(AgentIdle)
        await again.stop()
        assert not {"RunStart", "UserMessage"} & set(names(await reader.all()))


async def test_a_task_that_the_program_says_failed_is_failed(folder: Path):
    async with KitHost() as host:
        life = runner_of(LISTENING).start(launch(folder, "fail"), host)
        reader = Reader(life)
        events = await reader.until(RunEnd)
        assert ends(events) == ["failed"]
        assert "it cannot" in (one(events, RunEnd).error or "")
        await life.stop()
        assert one(await reader.all(), AgentStopped).error is None  # its next task may go well


async def test_a_program_that_dies_in_its_task_has_failed_with_its_last_words(folder: Path):
    async with KitHost() as host:
        events = await Reader(runner_of(LISTENING).start(launch(folder, "die"), host)).all()
    stopped = one(events, AgentStopped)
    assert ends(events) == ["failed"]
    assert (stopped.reason, stopped.code) == ("exit", 7)
    assert "code 7: ready" in (stopped.error or "")
    assert [event.text for event in events if isinstance(event, AgentOutput)] == ["ready"]


async def test_one_malformed_line_is_passed_over_and_shown(folder: Path):
    async with KitHost() as host:
        life = runner_of(LISTENING).start(launch(folder, "garbage"), host)
        reader = Reader(life)
        await reader.until(AgentIdle)
        await life.send("more")
        await reader.until(RunEnd, RunEnd)
        await life.stop()
        events = await reader.all()
    assert texts(events) == ["still here", "did more"]
    shown = [event.text for event in events if isinstance(event, AgentOutput) and event.stream == "stdout"]
    assert shown == ['{"type": "assistant_mess', "npm warn"]


async def test_a_grandchild_that_holds_the_pipes_does_not_hang_the_agent(folder: Path):
    async with KitHost() as host:
        async with asyncio.timeout(30):
            life = runner_of(LISTENING).start(launch(folder, "daemon", waits=SHORT), host)
            reader = Reader(life)
            await reader.until(RunEnd)
            await life.stop()
            events = await reader.all()
    assert ends(events) == ["finished"]


async def test_a_program_that_does_not_listen_to_reason_is_killed(folder: Path):
    async with KitHost() as host:
        life = runner_of(LISTENING).start(launch(folder, "one", model="stubborn", waits=SHORT), host)
        reader = Reader(life)
        await reader.until(AgentIdle)
        pid = life.pid
        assert pid is not None
        await life.stop()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert one(await reader.all(), AgentStopped).reason == "shutdown"
        with pytest.raises(AgentNotRunning):
            await life.send("hello?")


async def test_a_second_stop_waits_for_the_first_and_a_late_cancel_does_nothing(folder: Path):
    async with KitHost() as host:
        life = runner_of(LISTENING).start(launch(folder, "one"), host)
        await asyncio.gather(life.stop(), life.stop())
        await life.stop()
        await life.cancel()
        assert one(await Reader(life).all(), AgentStopped).reason == "shutdown"


async def test_a_fast_first_turn_is_not_missed_by_who_reads_late(folder: Path):
    async with KitHost() as host:
        life = runner_of("codex", [RunnerSection("codex", replay_command("codex_text", 0))]).start(
            launch(folder), host
        )
        reader = asyncio.create_task(Reader(life).all())  # it begins behind the program's life
        assert names(await reader)[:2] == ["RunStart", "UserMessage"]


async def test_words_for_a_program_that_has_gone_come_back_as_an_error(folder: Path):
    async with KitHost() as host:
        life = runner_of(LISTENING).start(launch(folder, "leave"), host)
        reader = Reader(life)
        await reader.until(RunEnd)
        (folder / "inbox").unlink()
        with pytest.raises(AgentNotRunning):
            await life.send("are you there")
        await life.stop()
        await reader.all()


# -- what keeps a program from starting ------------------------------------------------------------


async def test_a_working_directory_that_is_gone_is_an_error(folder: Path):
    gone = folder / "gone"
    async with KitHost() as host:
        events = await Reader(runner_of(LISTENING).start(launch(folder, cwd=gone), host)).all()
    stopped = one(events, AgentStopped)
    assert (stopped.reason, stopped.code) == ("exit", None)
    assert "its working folder: No such file" in (stopped.error or "")
    assert ends(events) == ["failed"]
    assert "AgentStarted" not in names(events)


async def test_a_program_that_is_not_there_is_an_end_with_a_word(folder: Path):
    async with KitHost() as host:
        events = await Reader(runner_of(["no-such-program"]).start(launch(folder), host)).all()
    assert "no-such-program" in (one(events, AgentStopped).error or "")


async def test_an_inbox_with_a_path_that_is_too_long_is_an_error(folder: Path):
    async with KitHost() as host:
        far = folder / ("x" * 120)
        events = await Reader(runner_of(LISTENING).start(launch(folder, inbox=far), host)).all()
    assert "100 bytes" in (one(events, AgentStopped).error or "")


async def test_an_agent_may_be_stopped_before_it_has_begun(folder: Path):
    async with KitHost() as host:
        for turns in range(6):
            life = runner_of(LISTENING).start(launch(folder, session="s"), host)
            reader = Reader(life)
            for _ in range(turns):
                await asyncio.sleep(0)
            await life.stop()
            assert one(await reader.all(), AgentStopped).reason == "shutdown"


async def test_an_agent_that_is_cancelled_and_stopped_while_it_starts_leaves_nothing(folder: Path):
    async with KitHost() as host:
        for turns in range(0, 60, 6):
            life = runner_of(LISTENING).start(launch(folder, session="s"), host)
            reader = Reader(life)
            for _ in range(turns):
                await asyncio.sleep(0)
            await life.cancel()
            await life.stop()
            assert not left_in(folder)
            assert one(await reader.all(), AgentStopped).reason in {"cancelled", "shutdown"}
            (folder / "inbox").unlink(missing_ok=True)


def test_a_runner_that_is_not_known_is_refused_with_what_there_is():
    for name in ("vim", "acp:", 'acp:"'):
        with pytest.raises(UnknownRunner):
            runner_of(name)
    with pytest.raises(UnknownRunner):
        runner_of([])
    given = runner_of(LISTENING)
    assert runner_of(given) is given
    assert [runner_of(name).one_shot for name in ("claude", "codex", "gemini")] == [False, True, True]


# -- programs that do one task ---------------------------------------------------------------------


async def test_a_good_last_line_and_code_0_is_success(folder: Path):
    async with KitHost() as host:
        events = await Reader(replay("codex_text").start(launch(folder), host)).all()
    assert ends(events) == ["finished"]
    assert one(events, AgentStopped).code == 0
    assert one(events, AgentStopped).error is None
    assert one(events, AgentStarted).session == "01a1fb65-d995-7a51-987a-3849d48526b1"


async def test_a_good_last_line_and_another_code_is_failure(folder: Path):
    async with KitHost() as host:
        events = await Reader(replay("codex_text", 3).start(launch(folder), host)).all()
    assert ends(events) == ["failed"]
    assert "code 3" in (one(events, AgentStopped).error or "")


async def test_an_api_error_with_code_0_is_not_success(folder: Path):
    async with KitHost() as host:
        runner = replay("gemini_midstream", 0, runner="gemini")
        events = await Reader(runner.start(launch(folder), host)).all()
    assert ends(events) == ["failed"]
    assert "without a finish reason" in (one(events, AgentStopped).error or "")


async def test_an_end_without_a_last_line_is_failure_whatever_its_code(folder: Path):
    async with KitHost() as host:
        for code in (0, 1):
            events = await Reader(
                replay("gemini_e429", code, runner="gemini").start(launch(folder), host)
            ).all()
            assert ends(events) == ["failed"]
            assert one(events, AgentStopped).error is not None


async def test_what_a_program_writes_for_a_terminal_is_plain_in_its_error_and_output(folder: Path):
    script = r"printf '\033[31mno way\033[0m\n' >&2; printf '\033[1mhi\033[0m\n'; exit 55"
    async with KitHost() as host:
        runner = runner_of("gemini", [RunnerSection("gemini", ("sh", "-c", script))])
        events = await Reader(runner.start(launch(folder), host)).all()
    error = one(events, AgentStopped).error
    assert error is not None
    assert error.message == "gemini ended with code 55: no way"
    assert {event.text for event in events if isinstance(event, AgentOutput)} == {"no way", "hi"}


async def test_an_error_of_a_variable_that_was_not_handed_on_says_how_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SHOP_KEY", "here")
    script = 'echo "Missing variable: SHOP_KEY (and NO_SUCH_KEY), see HOME"; exit 1'
    async with KitHost() as host:
        for env in ((), ("SHOP_KEY",)):
            section = RunnerSection("gemini", ("sh", "-c", f"{{ {script}; }} >&2"), env=env)
            events = await Reader(runner_of("gemini", [section]).start(launch(folder), host)).all()
            for error in (one(events, RunEnd).error, one(events, AgentStopped).error):
                assert error is not None
                hint = error.hint or ""
                assert hint.startswith("SHOP_KEY is set here, but the program did not get it") == (not env)
                assert "NO_SUCH_KEY" not in hint


async def test_a_program_of_one_task_takes_no_words_and_is_ended_by_a_cancel(folder: Path):
    async with KitHost() as host:
        life = replay("gemini_e429", 0, "hang", runner="gemini").start(launch(folder, waits=SHORT), host)
        reader = Reader(life)
        await reader.until(AgentStarted)
        with pytest.raises(AgentBusy):
            await life.send("and the docs")
        await life.cancel()
        events = await reader.all()
    assert ends(events) == ["cancelled"]
    assert one(events, AgentStopped).reason == "cancelled"


async def test_a_program_that_goes_on_behind_its_last_line_is_ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("actors.swarm.runners.program._LINGER_SECONDS", 0.05)
    async with KitHost() as host:
        runner = replay("codex_text", 0, "deaf")
        events = await Reader(runner.start(launch(folder, waits=SHORT), host)).all()
    assert ends(events) == ["finished"]
    assert one(events, AgentStopped).error is None


async def test_a_program_of_one_task_that_is_resumed_waits_for_words(folder: Path):
    async with KitHost() as host:
        life = replay("codex_text").start(launch(folder, None, session="t-1", resuming=True), host)
        reader = Reader(life)
        await reader.until(AgentIdle)
        assert life.pid is None
        await life.send("go on")
        events = await reader.all()
    assert [event.item.text for event in events if isinstance(event, UserMessage)] == ["go on"]
    assert ends(events) == ["finished"]
    life = replay("codex_text").start(launch(folder, None, session="t-1", resuming=True), KitHost())
    reader = Reader(life)
    await reader.until(AgentIdle)
    await life.stop()
    assert one(await reader.all(), AgentStopped).reason == "shutdown"


async def test_their_retries_are_bounded(folder: Path):
    async with KitHost() as host:
        section = RunnerSection("codex", replay_command("codex_e429", 0, "hang"), max_retries=2)
        runner = runner_of("codex", [section])
        events = await Reader(runner.start(launch(folder, waits=SHORT), host)).all()
    assert ends(events) == ["failed"]
    stopped = one(events, AgentStopped)
    assert stopped.reason == "exit"
    assert stopped.error is not None
    assert stopped.error.details["kind"] == "rate_limit"


async def test_a_program_that_falls_silent_is_ended(folder: Path):
    section = RunnerSection("gemini", replay_command("gemini_e429", 0, "hang"), quiet_seconds=0.5)
    async with KitHost() as host:
        events = await Reader(runner_of("gemini", [section]).start(launch(folder, waits=SHORT), host)).all()
    assert ends(events) == ["failed"]
    assert "printed nothing" in (one(events, AgentStopped).error or "")


async def test_the_words_of_a_user_are_recorded_before_the_program_begins(folder: Path):
    async with KitHost() as host:
        life = runner_of(LISTENING).start(launch(folder, "one"), host)
        seen = []
        async for event in life:
            seen.append(event)
            if isinstance(event, RunStart | UserMessage):
                for _ in range(20):
                    await asyncio.sleep(0)
                assert life.pid is None
            if isinstance(event, AssistantMessage):
                break
        await life.stop()


async def test_a_program_that_a_signal_without_a_name_ends_is_at_its_end(folder: Path):
    script = folder / "program"
    script.write_text(f"#!{sys.executable} -IS\nimport os\nos.kill(os.getpid(), 40)\n")
    script.chmod(0o700)
    async with KitHost() as host:
        runner = runner_of("codex", [RunnerSection("codex", (str(script),))])
        events = await Reader(runner.start(launch(folder, waits=SHORT), host)).all()
    stopped = one(events, AgentStopped)
    assert (stopped.reason, stopped.code) == ("killed", -40)
    assert "ended by signal 40" in stopped.error


async def test_a_program_that_reads_nothing_any_more_is_ended_by_a_cancel(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("actors.swarm.runners.program._CANCEL_SECONDS", 0.05)
    async with KitHost() as host:
        life = listening().start(launch(folder, task=None, model="deaf", waits=SHORT), host)
        reader = Reader(life)
        await reader.until(AgentIdle)
        sending = asyncio.create_task(life.send("x" * (4 << 20)))
        await reader.until(RunStart, UserMessage)
        await asyncio.wait_for(life.cancel(), 30)
        events = await reader.all()
        await asyncio.gather(sending, return_exceptions=True)
    assert ends(events) == ["cancelled"]
    assert one(events, AgentStopped).reason == "cancelled"
