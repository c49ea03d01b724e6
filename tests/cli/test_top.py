"""``polypod top``: agents and pods on one screen, over a real service with real agents."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import termios
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from person import person
from rich.cells import cell_len
from swarm_kit import Swarm, swarm_in
from textual.app import App
from textual.events import Key
from textual.pilot import Pilot
from textual.widgets import OptionList, Static, TextArea

from actors.cli.errors import run_guarded
from actors.cli.main import polypod
from actors.cli.swarm.client import Client
from actors.cli.top.app import Top
from actors.cli.top.listing import Listing
from actors.cli.top.questions import Approval, Removal, Words, arguments_text
from actors.cli.top.task_line import split
from actors.cli.top.transcript import Transcript, lines_of_event, unfinished
from protocol.events import ApprovalRequested, AssistantMessage, TextDelta
from protocol.items import AssistantItem

ASKING = """
[pod]
name = "asker"
[model]
scheme = "offline"
[tools]
builtin = ["files", "search"]
[[scope.allow]]
target = "."
permission = "read"
[[approval]]
tool = "count_words"
policy = "ask"
"""


GREYS = {(str(level),) * 3 for level in range(256)}
WHERE: dict[str, Any] = {"pod": "a", "session_id": "s", "seq": 1, "at": 0.0}


class Screen:
    """What a person sees of the app, and the keys that they press."""

    def __init__(self, app: Any, pilot: Pilot[None]) -> None:
        self.app, self.pilot = app, pilot

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until that holds; the time-out of the test ends it where it never does."""
        while not holds():
            await self.pilot.pause(0.04)

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def write(self, words: str) -> None:
        """Write into the question that is open, and send it."""
        await self.until(lambda: isinstance(self.app.screen, Words) and bool(self.app.screen.query(TextArea)))
        self.app.screen.query_one(TextArea).text = words
        await self.press("enter")

    async def sees_question(self, words: str) -> None:
        """Wait until the person is asked for an approval, and what for: only then keys are an answer."""
        await self.until(lambda: isinstance(self.app.screen, Approval))
        await self.until(lambda: any(words in str(each.render()) for each in self.app.screen.query(Static)))

    @property
    def rows(self) -> list[str]:
        """The lines of the list."""
        listing = self.app.screen_stack[0].query_one(Listing)
        return [str(listing.get_option_at_index(index).prompt) for index in range(listing.option_count)]

    @property
    def line(self) -> str:
        trouble = self.app._trouble
        return (trouble or self.app._said).text

    @property
    def transcript(self) -> str:
        screen = self.app.screen
        return "\n".join(line.text for line in screen._lines) if isinstance(screen, Transcript) else ""

    async def shows(self, words: str, under: str = "") -> None:
        """Wait until a row has the words, in the group ``under``."""
        await self.until(lambda: any(words in row for row in self.group(under)))

    def group(self, title: str) -> list[str]:
        """The rows of a group; all lines for no title."""
        starts = [index for index, row in enumerate(self.rows) if not row.startswith(" ")]
        for start, end in pairwise([*starts, len(self.rows)]):
            if title and self.rows[start].startswith(title):
                return self.rows[start + 1 : end]
        return [] if title else self.rows

    async def says(self, words: str) -> None:
        """Wait until the line at the foot has the words."""
        await self.until(lambda: words in self.line)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Swarm]:
    with swarm_in(tmp_path) as swarm:
        for name, value in swarm.env.items():
            if name.startswith(("XDG", "POLYPOD", "HOME")):
                monkeypatch.setenv(name, value)
        monkeypatch.chdir(swarm.folder)
        swarm.write("a.txt", "one two three")
        yield swarm


@contextmanager
def killed(process: subprocess.Popen[str]) -> Iterator[None]:
    """At the end the process is killed if it is there still: whoever waits for it would wait for ever."""
    try:
        yield
    finally:
        process.kill()


@asynccontextmanager
async def looking(home: Swarm, columns: int = 100, patience: float = 5.0) -> AsyncIterator[Screen]:
    app = Top(Client(home.root, home.env.get("POLYPOD_STORE")), patience)
    async with app.run_test(size=(columns, 30)) as pilot:
        yield Screen(app, pilot)


@pytest.mark.slow
async def test_an_agent_is_started_watched_sent_to_stopped_resumed_and_removed(home: Swarm) -> None:
    async with looking(home) as screen:
        await screen.press("n")
        await screen.write("--model offline --name counter count words in a.txt")
        await screen.shows("a.txt has 3 words.", under="ended")
        await screen.press("enter")
        await screen.until(lambda: "agent waits for a message" in screen.transcript)
        assert "▸ count_words(path='a.txt')" in screen.transcript
        await screen.press("p")
        await screen.until(lambda: isinstance(screen.app.screen, Words))
        await screen.press("h", "i", "ctrl+j", "q", "enter")
        await screen.until(lambda: screen.transcript.count("run finished") == 2)
        assert "hi\nq" in screen.transcript
        await screen.press("k")
        await screen.says("stopped")
        await screen.shows("■ kill", under="ended")
        await screen.press("p")
        await screen.says("has ended: press R to resume it")
        await screen.press("R")
        await screen.says("is running again")
        await screen.until(lambda: "agent resumed" in screen.transcript)
        await screen.press("r")
        await screen.says("is still running")
        await screen.press("escape", "k")
        await screen.shows("■ kill", under="ended")
        await screen.press("r")
        await screen.until(lambda: isinstance(screen.app.screen, Removal))
        await screen.press("r")
        await screen.says("is removed")
        await screen.until(lambda: screen.group("ended") == [])
    assert home.swarm("ls", "--json").lines == []


async def test_keys_that_come_at_once_are_words_for_the_question_and_no_commands(home: Swarm) -> None:
    home.started("count words in a.txt", "--wait", "--name", "tests")
    async with looking(home) as seen:
        await seen.shows("3 words")
        await seen.press("down")
        for letter in "pick n":
            seen.app.post_message(Key("space" if letter == " " else letter, letter))
        await seen.until(lambda: isinstance(seen.app.screen, Words))
        await seen.until(lambda: seen.app.screen.query_one(TextArea).text == "ick n")
        assert len(seen.app.screen_stack) == 2
        await seen.press("escape")
        assert "stopped" not in seen.line


async def test_enter_and_a_new_line_come_behind_the_keys_before_them(home: Swarm) -> None:
    async with looking(home) as seen:
        sent = list[str | None]()
        seen.app.push_screen(Words("what?"), sent.append)
        await seen.until(lambda: isinstance(seen.app.focused, TextArea))
        for key in ("a", "b", "ctrl+j", "c", "enter"):
            seen.app.post_message(Key(key, key if len(key) == 1 else None))
        await seen.until(lambda: bool(sent))
        assert sent == ["ab\nc"]


async def test_keys_behind_an_answer_answer_nothing_and_close_no_other_screen(home: Swarm) -> None:
    """They did the same once more, and ended the app with a traceback where there was no screen below."""
    home.started("hello", "--name", "tests")
    async with looking(home) as seen:
        await seen.shows("tests-")
        for question in (Words("what?"), Removal("tests")):
            answers = list[Any]()
            await seen.app.push_screen(question, answers.append)
            for _ in range(2):
                await question.run_action("dismiss(None)")
            await seen.pilot.pause()
            assert answers == [None]
            assert len(seen.app.screen_stack) == 1
        listing = seen.app.query_one(Listing)
        for _ in range(2):
            listing.action_select()
        await seen.until(lambda: "agent waits for a message" in seen.transcript)
        assert len(seen.app.screen_stack) == 2
        transcript = seen.app.screen
        assert isinstance(transcript, Transcript)
        for _ in range(2):
            transcript.action_back()
        await seen.pilot.pause()
        assert len(seen.app.screen_stack) == 1


async def test_pages_are_turned_where_there_is_no_room_for_a_row(home: Swarm) -> None:
    """It ended with a traceback."""
    home.started("hello", "--name", "tests")
    async with looking(home) as seen:
        await seen.shows("tests-")
        listing = seen.app.query_one(Listing)
        await seen.pilot.resize_terminal(40, 1)
        await seen.until(lambda: not listing.scrollable_content_region)
        await seen.press("pageup", "pagedown")
        assert listing.key is not None


async def test_what_comes_once_the_screens_are_gone_is_passed_over(home: Swarm) -> None:
    async with looking(home) as seen:
        await seen.until(lambda: seen.app._trouble is None)
    assert seen.app.screen_stack == []
    seen.app._show_problems(["agent.json is damaged"])
    seen.app._show()
    seen.app.say("resumed")
    assert seen.app._agent() is None
    assert await seen.app._remove("tests", None) is None


@pytest.mark.parametrize(("key", "answered"), [("y", "3 words"), ("n", "denied")])
async def test_what_waits_for_approval_is_answered(home: Swarm, key: str, answered: str) -> None:
    manifest = home.write("asker.toml", ASKING)
    started = home.swarm("start", "count words in a.txt", "--manifest", str(manifest))
    assert started.code == 0, started.err
    async with looking(home) as screen:
        await screen.shows("allow count_words?", under="needs you")
        await screen.press("enter")
        await screen.until(lambda: "waits for approval" in screen.transcript)
        await screen.press("a")
        await screen.sees_question("a.txt")
        await screen.press(key)
        await screen.until(lambda: "run finished" in screen.transcript)
        assert answered in screen.transcript
        await screen.shows("● idle", under="ended")
        await screen.press("a")
        await screen.says("is not waiting for approval")


@pytest.mark.slow
async def test_a_pod_of_another_process_is_answered(home: Swarm) -> None:
    manifest = home.write("asker.toml", f'{ASKING}[approvals]\nheadless = "wait"\n')
    with home.start("run", "count words in a.txt", "--manifest", str(manifest)) as process, killed(process):
        async with looking(home) as screen:
            await screen.shows("allow count_words?", under="pods of the store")
            await screen.until(lambda: (screen.app._key or "").startswith("pod "))
            await screen.press("a")
            await screen.sees_question("a.txt")
            await screen.press("y")
            await screen.says("allowed count_words for asker")
            await screen.shows("✓ done", under="pods of the store")
        out, err = process.communicate(timeout=60)
    assert (process.returncode, "3 words" in out) == (0, True), err


@pytest.mark.slow
async def test_a_service_that_stands_still_or_dies_is_said_in_a_line(home: Swarm) -> None:
    home.started("hello")
    pid = home.service()
    async with looking(home, patience=0.2) as screen:
        await screen.shows("hello-", under="ended")
        os.kill(pid, signal.SIGSTOP)
        await screen.says("does not answer")
        await screen.press("n")
        await screen.until(lambda: isinstance(screen.app.screen, Words))  # keys go on
        await screen.press("escape")
        os.kill(pid, signal.SIGCONT)
        await screen.until(lambda: screen.app._trouble is None)
    async with looking(home) as screen:
        await screen.shows("hello-", under="ended")
        os.kill(pid, signal.SIGKILL)
        await screen.shows("✓ done", under="ended")


async def test_a_service_that_cannot_start_is_said_in_a_line(home: Swarm) -> None:
    home.env["POLYPOD_STORE"] = "sqlite:/dev/null/pods.db"
    async with looking(home) as screen:
        await screen.says("did not start")
        await screen.press("n")
        await screen.write("--json hello")
        await screen.until(lambda: "--json cannot be used here" in screen.app._said.text)


async def test_what_cannot_be_read_is_said_as_long_as_that_is_so(home: Swarm) -> None:
    stray = home.root / "agents" / "stray-1"
    stray.mkdir(parents=True)
    (stray / "notes.txt").write_text("mine")
    async with looking(home) as screen:

        def title() -> str:
            return str(screen.app.screen_stack[0].query_one("#title", Static).render())

        await screen.until(lambda: "stray-1" in title())
        screen.app.say("something else")
        (stray / "notes.txt").unlink()
        stray.rmdir()
        await screen.until(lambda: title() == "polypod top")


async def test_words_that_could_not_be_sent_are_there_again(home: Swarm) -> None:
    home.started("hello")
    async with looking(home) as screen:
        await screen.shows("hello-", under="ended")
        await screen.press("p")
        await screen.until(lambda: isinstance(screen.app.screen, Words))
        home.swarm("stop", "hello")
        await screen.write("and more")
        await screen.says("press R to resume it")
        await screen.press("R")
        await screen.shows("idle", under="ended")
        await screen.press("p")
        await screen.until(
            lambda: isinstance(screen.app.screen, Words) and bool(screen.app.screen.query(TextArea))
        )
        assert screen.app.screen.query_one(TextArea).text == "and more"


async def test_pods_of_the_store_stand_beside_agents(home: Swarm) -> None:
    home.run("count words in a.txt", "--name", "alone")
    home.started("hello")
    async with looking(home) as screen:
        await screen.shows("alone", under="pods of the store")
        assert [row.split()[:2] for row in screen.group("pods of the store")] == [["✓", "done"]]
        screen.app.screen.query_one(OptionList).action_last()
        await screen.press("k")
        await screen.says("a pod, not an agent")
        await screen.press("enter")
        await screen.until(lambda: "a.txt has 3 words." in screen.transcript)
        [session] = home.polypod("ps", "--pod", "alone", "--json").lines
        home.polypod("resume", session["session_id"], "hello")
        await screen.until(lambda: screen.transcript.count("run finished") == 2)


@pytest.mark.parametrize("columns", [40, 100])
async def test_a_row_keeps_to_one_line_at_any_width(home: Swarm, columns: int) -> None:
    home.started("say a thing that is longer than any terminal is wide " * 4, "--name", "of-many-letters")
    async with looking(home, columns) as screen:
        await screen.shows("● idle", under="ended")
        listing = screen.app.screen.query_one(Listing)
        assert listing.virtual_size.height == listing.option_count
        assert max(map(cell_len, screen.rows)) <= columns
        assert screen.rows[0].split() == ["STATUS", "ID", *(["AGE"] if columns == 100 else []), "ACTIVITY"]
        await screen.pilot.resize_terminal(60, 20)
        await screen.until(lambda: max(map(cell_len, screen.rows)) <= 60)


async def test_the_cursor_stays_on_its_agent_while_others_come(home: Swarm) -> None:
    first = home.started("hello", "--name", "first")
    async with looking(home) as screen:
        await screen.shows("first-", under="ended")
        home.started("hello", "--name", "second")
        await screen.shows("second-", under="ended")
        assert screen.app.screen.query_one(Listing).key == f"agent {first}"


def test_at_a_terminal_it_shows_rows_and_leaves_the_terminal_as_it_was(home: Swarm) -> None:
    home.started("hello")
    with person(home, "top") as somebody:
        before = termios.tcgetattr(somebody._master)
        somebody.sees("hello-")
        seen = somebody.before
        somebody.press("q")
        somebody.sees("\x1b[?1049l")
        assert "Traceback" not in seen + somebody.before
        assert somebody.leaves_with() == 0
        assert termios.tcgetattr(somebody._master) == before


@pytest.mark.slow
def test_ctrl_z_gives_the_terminal_to_the_shell_until_it_goes_on(home: Swarm) -> None:
    shell = home.write("shell", '#!/bin/bash\nset -m\n"$@"\nread -p "[back]"\nfg > /dev/null\n')
    shell.chmod(0o700)
    with person(home, "top", through=str(shell)) as somebody:
        somebody.sees("n starts an agent")
        somebody.press("\x1a")
        somebody.sees("[back]")
        assert somebody.takes_lines()
        somebody.press("\n")
        somebody.sees("n starts an agent")
        somebody.press("q")
        assert somebody.leaves_with() == 0


def test_ctrl_z_stops_nothing_where_no_shell_could_have_it_go_on(home: Swarm) -> None:
    with person(home, "top") as somebody:
        somebody.sees("n starts an agent")
        somebody.press("\x1aq")
        assert somebody.leaves_with() == 0


def test_bytes_that_are_not_utf8_are_passed_over(home: Swarm) -> None:
    """They ended it with a traceback, and exit code 0."""
    with person(home, "top") as somebody:
        somebody.sees("n starts an agent")
        somebody.press_bytes(b"\xff\xe9")
        while somebody.process.poll() is None:
            somebody.press("\x03")  # which may be read together with those bytes, and passed over too
            with contextlib.suppress(subprocess.TimeoutExpired):
                somebody.process.wait(0.2)
        assert somebody.leaves_with() in {0, 130}  # where Ctrl-C comes once more while it leaves
        assert "Traceback" not in somebody.written


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_comes_as_it_begins_leaves_the_terminal_as_it_was(
    home: Swarm, number: signal.Signals
) -> None:
    """For some 50 ms SIGTERM left the terminal to nobody, and Ctrl-C of another program had it hang."""
    with person(home, "top") as somebody:
        before = termios.tcgetattr(somebody._master)
        somebody.sees("\x1b[?1049h")
        somebody.process.send_signal(number)
        somebody.sees("\x1b[?1049l")
        assert somebody.leaves_with() == 128 + number
        assert termios.tcgetattr(somebody._master) == before


def test_a_sigcont_that_no_stop_preceded_leaves_the_terminal_as_it_was(home: Swarm) -> None:
    """What it had set itself was taken for what was there before."""
    with person(home, "top") as somebody:
        before = termios.tcgetattr(somebody._master)
        somebody.sees("n starts an agent")
        for _ in range(2):
            somebody.process.send_signal(signal.SIGCONT)
            somebody.sees("\x1b[?1049h")
        somebody.press("n")
        somebody.sees("New task")
        somebody.press("\x03")
        assert somebody.leaves_with() == 0
        assert termios.tcgetattr(somebody._master) == before


def test_it_ends_with_a_terminal_that_is_closed_as_it_begins(home: Swarm, terminals_count: None) -> None:
    """It waited for ever to write to that."""
    for _ in range(3):
        with person(home, "top") as somebody:
            somebody.sees("\x1b[?1049h")
            somebody.hang_up()
            assert somebody.process.wait(60) == 129


def test_it_ends_with_its_terminal(home: Swarm, terminals_count: None) -> None:
    with person(home, "top") as somebody:
        somebody.sees("n starts an agent")
        somebody.hang_up()
        assert somebody.process.wait(60) == 129


@pytest.mark.parametrize("wanted", [True, False])
def test_it_has_no_colours_where_none_are_wanted(home: Swarm, wanted: bool) -> None:
    home.env |= {"COLORTERM": "truecolor"} | ({} if wanted else {"NO_COLOR": "1"})
    home.started("hello")
    with person(home, "top", columns=40) as somebody:
        somebody.sees("hello-")
        codes = re.findall(r"\x1b\[(?:1;)?([34]8;2;[0-9;]*)m", somebody.before)
        colours = {tuple(code.split(";")[at : at + 3]) for code in codes for at in (2, 7)} - {()}
        assert bool(colours - GREYS) is wanted
        somebody.press("\x03")
        assert somebody.leaves_with() == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_the_terminal_as_it_was(home: Swarm, number: signal.Signals) -> None:
    with person(home, "top") as somebody:
        somebody.sees("n starts an agent")
        somebody.process.send_signal(number)
        somebody.sees("\x1b[?1049l")
        assert somebody.leaves_with() == 128 + number


def test_without_a_terminal_it_says_so(home: Swarm) -> None:
    done = home.polypod("top")
    assert (done.code, done.out) == (2, "")
    assert "needs a terminal" in done.err


def test_without_textual_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "textual", None)
    assert run_guarded(lambda: polypod(["top"], standalone_mode=False)) == 1
    assert "pip install 'polypod[top]'" in capsys.readouterr().err


def test_no_other_command_imports_textual() -> None:
    program = "import sys, actors.cli.main; sys.exit('textual' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("line", "flags", "task"),
    [
        ("don't stop", [], "don't stop"),
        ("--model offline  say --this", ["--model", "offline"], "say --this"),
        ("--name=x --keep do it", ["--name", "x", "--keep"], "do it"),
        ("--runner 'python a.py' go", ["--runner", "python a.py"], "go"),
        ("--name x -- --odd", ["--name", "x"], "--odd"),
    ],
)
def test_only_leading_flags_are_flags(line: str, flags: list[str], task: str) -> None:
    assert split(line) == (flags, task)


@pytest.mark.parametrize("line", ["--json x", "--nope y x", "--model"])
def test_other_flags_are_refused(line: str) -> None:
    with pytest.raises(click.UsageError, match="cannot be used here"):
        split(line)


@given(st.text().filter(lambda text: not text.lstrip().startswith("--")))
def test_a_task_without_flags_is_left_as_it_is(text: str) -> None:
    assert split(text) == ([], text.strip())


async def test_of_a_long_transcript_the_last_lines_are_written_and_again_at_another_width(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actors.cli.top.transcript._KEPT", 200)

    async def source() -> AsyncGenerator[AssistantMessage, None]:
        for number in range(1000):
            yield AssistantMessage(**WHERE, item=AssistantItem.of(f"answer {number}"))
        await asyncio.Event().wait()

    app = App[None]()
    async with app.run_test(size=(100, 30)) as pilot:
        transcript = Transcript("agent a", "a", source, lambda: True)
        app.push_screen(transcript)
        screen = Screen(app, pilot)
        log = transcript._log
        for columns in (100, 40):
            await pilot.resize_terminal(columns, 30)
            await screen.until(lambda: bool(log.lines) and log.lines[-1].text.strip() == "answer 999")
            assert len(log.lines) == 200


def test_an_answer_is_shown_whole_and_its_pieces_only_until_it_is() -> None:
    pieces = [TextDelta(**WHERE, text=text) for text in ("one\n", "two")]
    piece = ""
    for each in pieces:
        assert list(lines_of_event(each)) == []
        piece = unfinished(piece, each)
    assert piece == "one\ntwo"
    whole = AssistantMessage(**WHERE, item=AssistantItem.of(piece))
    assert [line.text for line in lines_of_event(whole)] == [piece]
    assert unfinished(piece, whole) == ""


def test_a_question_shows_what_would_turn_words_around_or_that_nobody_sees_as_escapes() -> None:
    asked = ApprovalRequested(
        **WHERE, approval_id="i", tool="shell", arguments={"command": "rm \u202efdp.exe\u3164\x1b[2J"}
    )
    assert arguments_text(asked) == '{\n  "command": "rm \\u202efdp.exe\\u3164\\u001b[2J"\n}'
