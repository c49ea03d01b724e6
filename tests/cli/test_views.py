"""Views: what a person and a program see of a run, reported by a real pod."""

import asyncio
import contextlib
import io
import os
import pty
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from actors.cli.approvals.approver import Nobody
from actors.cli.display.answer_writer import MarkdownWriter
from actors.cli.display.terminal import Terminal
from actors.cli.display.views import JsonView, PeopleView, View
from actors.cli.follow import follow_run
from actors.cli.sessions.table import Row, print_sessions
from actors.llm.base import LLMClient
from actors.llm.scripted import ScriptedClient, call, say
from actors.routing.chain.chain import EscalationChain
from actors.system import PodSystem
from actors.tools.base import tool
from protocol import events
from protocol.errors import Failure, ModelError, RunFailed
from protocol.manifest import PodManifest
from protocol.results import RunResult
from protocol.routing import AttemptRecord
from protocol.usage import Usage
from protocol.wire import decode_event

WHERE: dict[str, Any] = {"pod": "p", "session_id": "s", "seq": 1, "at": 0.0, "run_id": "r"}


@tool(concurrency="read_only")
def weather(town: str) -> str:
    """Give the weather."""
    if town == "Atlantis":
        raise ValueError("no such town")
    return f"rain in {town}"


def show(script: list[Any], view: View) -> None:
    """Have a pod play ``script`` and show its run."""
    show_client(ScriptedClient(script), view)


def show_client(client: LLMClient, view: View) -> None:
    """Have a pod ask ``client`` and show its run."""

    async def main() -> None:
        async with PodSystem() as system:
            pod = await system.spawn(PodManifest.of(name="p"), client=client, tools=[weather])
            await follow_run(system, pod, lambda pod: pod.run("go"), view, Nobody(system, Terminal()))

    asyncio.run(main())


def files() -> tuple[io.TextIOWrapper, io.TextIOWrapper]:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.TextIOWrapper(io.BytesIO(), encoding="utf-8")


def written(stream: io.TextIOWrapper) -> str:
    return stream.buffer.getvalue().decode()


def to_files(script: list[Any]) -> tuple[str, list[str]]:
    """Standard output and the lines of standard error, where neither is a terminal."""
    out, err = files()
    show(script, PeopleView(Terminal(out, err)))
    return written(out), written(err).splitlines()


def at_terminal(use: Callable[[Terminal], None], encoding: str = "utf-8") -> str:
    """What a person sees at a terminal that is both streams."""
    master, slave = pty.openpty()
    with os.fdopen(slave, "w", encoding=encoding, errors="replace") as stream:
        use(Terminal(stream, stream))
    seen = b""
    with contextlib.suppress(OSError):  # how the end of a terminal is reported
        while piece := os.read(master, 65536):
            seen += piece
    os.close(master)
    return seen.decode()


def test_an_answer_goes_to_standard_output_and_the_rest_to_standard_error():
    out, err = to_files(
        [
            call("weather", {"town": "Bergen"}, input_tokens=10, output_tokens=5),
            say("It rains.", input_tokens=20, output_tokens=3),
        ]
    )
    assert out == "It rains.\n"
    assert err[0].startswith("✓ weather(town='Bergen') → 14 B")
    assert err[1].startswith("finished · 2 requests · 30 tokens in, 8 out · ")


def test_a_tier_that_was_rejected_is_a_line_and_the_accepted_one_is_its_answer():
    out, err = files()
    view = PeopleView(Terminal(out, err))
    attempt = AttemptRecord("ollama/phi4", "local", 1200, True, "escalate", "too short", Usage(5, 2), 0.0)
    view.show(events.TierAttempted(**WHERE, attempt=attempt, usage=Usage(5, 2), cost=0.25))
    view.show(events.TierAttempted(**WHERE, attempt=replace(attempt, verdict="accept")))
    assert written(err).splitlines() == ["ollama/phi4 was rejected after 1.2 s: too short"]


def test_each_tier_of_a_chain_is_a_request():
    """Those that were rejected were not counted."""
    small = ScriptedClient([call("weather", {"town": "Bergen"}), say("I do not know.")])
    large = ScriptedClient([say("It rains.")])
    chain = EscalationChain(
        ["ollama/small", "claude-opus-5"],
        local=small,
        cloud=large,
        verifier=lambda _skill, _task, answer: "rain" in answer,
    )
    out, err = files()
    show_client(chain, PeopleView(Terminal(out, err)))
    assert written(out) == "It rains.\n"
    assert written(err).splitlines()[-1].startswith("finished · 3 requests · ")


def test_a_run_in_which_the_clock_is_set_back_took_no_less_than_no_time():
    out, err = files()
    view = PeopleView(Terminal(out, err))
    view.show(events.RunStart(**WHERE | {"at": 5000.0}))
    view.show(events.RunEnd(**WHERE | {"at": 100.0}, outcome="finished"))
    view.show_end(RunResult("done", "finished", Usage(), "r", "s"))
    assert "-" not in written(err)


def test_a_tool_that_failed_says_why():
    _, err = to_files([call("weather", {"town": "Atlantis"}), say("Sunk.")])
    assert err[0].startswith("✗ weather(town='Atlantis') → ")
    assert "no such town" in err[0]


def test_a_file_gets_the_last_answer_alone_and_what_was_said_before_it_stands_beside_the_tools():
    out, err = to_files([say("Let me look.") + call("weather", {"town": "Bergen"}), say("It rains.")])
    assert out == "It rains.\n"
    assert err[0] == "Let me look."


def test_a_failed_run_ends_the_line_and_names_the_session():
    out, err = files()
    with pytest.raises(RunFailed):
        show([ModelError("no", kind="auth")], PeopleView(Terminal(out, err)))
    assert written(err).startswith("failed · session ")


def test_at_a_terminal_text_is_shown_as_it_comes():
    def use(terminal: Terminal) -> None:
        view = PeopleView(terminal)
        view.show(events.TurnStart(**WHERE, turn=1))
        view.show(events.TextDelta(**WHERE, text="It "))
        view.show(events.TextDelta(**WHERE, text="rains."))

    assert at_terminal(use).replace("\x1b", "").endswith("It rains.")


def test_a_stream_that_broke_is_said_and_its_text_comes_again_on_a_new_line():
    def use(terminal: Terminal) -> None:
        view = PeopleView(terminal)
        view.show(events.TextDelta(**WHERE, text="It ra"))
        view.show(events.StreamRestart(**WHERE, attempt=1, error=Failure("ModelError", "cut")))
        view.show(events.TextDelta(**WHERE, text="It rains."))

    seen = at_terminal(use)
    assert "It ra\r\n" in seen
    assert "the stream broke, retrying: cut" in seen


def test_what_came_of_a_stream_that_broke_stands_above_the_line_that_says_so():
    def use(terminal: Terminal) -> None:
        view = PeopleView(terminal, writer=MarkdownWriter(terminal))
        view.show(events.TextDelta(**WHERE, text="One.\n\nIt ra"))
        view.show(events.StreamRestart(**WHERE, attempt=1, error=Failure("ModelError", "cut")))
        view.show(events.TextDelta(**WHERE, text="It rains."))

    seen = at_terminal(use)
    assert seen.index("One.") < seen.index("It ra") < seen.index("the stream broke")


def test_where_text_cannot_be_taken_back_only_whole_answers_are_written():
    out, err = files()
    view = PeopleView(Terminal(out, err))
    view.show(events.TextDelta(**WHERE, text="It ra"))
    view.show(events.StreamRestart(**WHERE, attempt=1, error=Failure("ModelError", "cut")))
    assert written(out) == ""


def test_while_a_tool_runs_a_terminal_shows_its_call():
    def use(terminal: Terminal) -> None:
        view = PeopleView(terminal)
        view.show(events.ToolStart(**WHERE, call_id="1", name="weather", arguments={"town": "Bergen"}))
        terminal.idle()

    assert "weather(town='Bergen')" in at_terminal(use)


def test_a_terminal_without_our_signs_gets_others():
    def use(terminal: Terminal) -> None:
        terminal.note("✓ read → 3 B · done…")

    assert "+ read -> 3 B - done..." in at_terminal(use, encoding="latin-1")


def test_no_colour_is_used_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[31m" not in at_terminal(lambda terminal: terminal.note("no", "error"))


def test_an_escape_sequence_in_an_answer_does_not_reach_the_terminal():
    assert "\x1b[2J" not in at_terminal(lambda terminal: terminal.write("\x1b[2Jgone\n"))


def test_a_program_gets_each_event_as_a_line_and_last_the_result(capfdbinary: pytest.CaptureFixture[bytes]):
    show([call("weather", {"town": "Bergen"}), say("It rains.", input_tokens=2, output_tokens=1)], JsonView())
    *reported, last = capfdbinary.readouterr().out.splitlines()
    kinds = [type(decode_event(line)) for line in reported]
    assert kinds[0] is not events.PodStarted  # the run's own events, from its start
    assert kinds.count(events.RunStart) == kinds.count(events.RunEnd) == 1
    assert kinds.index(events.ToolStart) < kinds.index(events.ToolResulted) < kinds.index(events.TextDelta)
    result = msgspec.json.decode(last)
    assert result["type"] == "RunResult"
    assert (result["text"], result["outcome"]) == ("It rains.", "finished")
    assert result["session_id"]


def test_a_program_is_notified_of_a_failed_run_as_data(capfdbinary: pytest.CaptureFixture[bytes]):
    with pytest.raises(RunFailed):
        show([ModelError("no", kind="auth", hint="a key")], JsonView())
    result = msgspec.json.decode(capfdbinary.readouterr().out.splitlines()[-1])
    assert result["outcome"] == "failed"
    assert result["error"] == {
        "kind": "ModelError",
        "message": "no",
        "hint": "a key",
        "details": {"kind": "auth"},
    }


def test_usage_that_no_server_reported_is_said_to_be_unknown():
    _, err = to_files([say("ok")])
    assert "tokens unknown" in err[-1]
    assert Usage().total_tokens is None


def test_a_session_is_named_behind_its_first_run_alone_and_tokens_where_a_request_was_sent():
    out, err = files()
    view = PeopleView(Terminal(out, err))
    result = RunResult("ok", "budget", Usage(), "r", "s")
    view.show_end(result)
    view.show_end(result)
    view.show_end(replace(result, session_id="t"))
    assert written(err).splitlines() == [
        "budget · 0 requests · session s",
        "budget · 0 requests",
        "budget · 0 requests · session t",
    ]


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 120])
def test_a_list_of_sessions_has_room_for_what_they_are_about(columns: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    ids = [f"01a22dc2-21a1-76d6-b7fc-1276fc1282{number}a" for number in range(1, 3)]
    held = Row(
        ids[0], "a-long-name-of-one", 0.0, "finished, in process 12345", "count words", "/work", "m", None
    )
    asks = Row(ids[1], "p", 0.0, "waits for approval", "pay ann", "/work/of/a/project", "openai/gpt-5", 1.5)
    seen = at_terminal(lambda terminal: print_sessions([held, asks], terminal))
    first, *lines = seen.splitlines()
    assert [line.split()[-2:] for line in lines[:1]] == [["count", "words"]] or columns == 40
    assert "finished" in lines[0]
    assert "waits for approval" in lines[1]
    assert "TASK" in first
    assert ("12345" in seen, "FOLDER" in seen) == (False, columns == 120)
    assert max(map(len, seen.splitlines())) <= columns
