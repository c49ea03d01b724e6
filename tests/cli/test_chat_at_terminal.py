"""Chat and runs at a terminal, by a person who presses keys."""

import asyncio
import os
import shutil
import signal
import subprocess
import termios
from pathlib import Path

import pytest
from command_kit import Home, silent_server
from person import ALT_ENTER, CTRL_C, CTRL_D, CTRL_J, ENTER, PATIENCE, PROMPT, UP, person

from actors.cli.chat.lines import LONGEST_LINE
from actors.cli.chat.prompt import Prompt
from actors.cli.display.screen import Screen
from actors.cli.display.terminal import Terminal


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.write("a.txt", "one two three\n")
    return home


def test_what_is_listed_at_a_terminal_is_short_enough_to_type(home: Home):
    home.run("list files", "--name", "first")
    home.run("count words", "--name", "second")
    sessions = {row["pod"]: row["session_id"] for row in home.polypod("ps", "--json").lines}
    with person(home, "ps") as somebody:
        for pod in ("second", "first"):
            somebody.sees(f"\r\n{sessions[pod][-12:]}  {pod}")
    for pod, session in sessions.items():
        short = session[-12:]
        assert home.polypod("show", short).out.splitlines()[1].split() == ["pod", pod]
        assert home.polypod("log", short).code == 0
        assert home.polypod("resume", short, "hello").code == 0


def test_a_chat_answers_turn_by_turn_and_remembers_what_was_typed(home: Home):
    with person(home, "chat", "--model", "offline") as somebody:
        somebody.sees(PROMPT)
        somebody.press("count words in a.txt" + ENTER)
        somebody.sees("a.txt has 3 words")
        somebody.sees("finished")
        somebody.sees(PROMPT)
        somebody.press(UP + ENTER)
        somebody.sees("a.txt has 3 words")
        somebody.sees("finished")
        somebody.sees(PROMPT)
        somebody.press(CTRL_D)
        assert somebody.leaves_with() == 0
    assert len(home.polypod("ps", "--json").lines) == 1
    history = home.state / "polypod" / "chat-history"
    assert history.stat().st_mode & 0o777 == 0o600


#: A manifest whose server cannot be started, and the alert in which a run says so.
OUT_OF_REACH = '[model]\nscheme = "offline"\n[[tools.mcp]]\nname = "gone"\ncommand = "no-such-program"\n'
ALERT = "MCP server 'gone' could not be reached"


@pytest.mark.parametrize("how", [(), ("--quiet",), ("--verbose",), ("--json",)])
def test_an_alert_of_a_run_is_shown_once(home: Home, how: tuple[str, ...]):
    home.write("pod.toml", OUT_OF_REACH)
    with person(home, "run", "hello", "--manifest", "pod.toml", *how) as somebody:
        assert somebody.leaves_with() == 0
    assert somebody.written.count(ALERT) == 1


def test_an_alert_of_a_chat_is_shown_once(home: Home):
    home.write("pod.toml", OUT_OF_REACH)
    with person(home, "chat", "--manifest", "pod.toml") as somebody:
        somebody.sees(PROMPT)
        somebody.press("hello" + ENTER)
        somebody.sees("finished")
        somebody.sees(PROMPT)
        somebody.press(CTRL_D)
        assert somebody.leaves_with() == 0
    assert somebody.written.count(ALERT) == 1


def test_ctrl_c_at_the_prompt_leaves_when_pressed_twice(home: Home):
    with person(home, "chat", "--model", "offline") as somebody:
        somebody.sees(PROMPT)
        somebody.press(CTRL_C)
        somebody.sees("Ctrl-C again leaves")
        somebody.sees(PROMPT)
        somebody.press(CTRL_C)
        assert somebody.leaves_with() == 0


def test_a_ctrl_c_long_before_or_on_written_words_does_not_make_a_later_one_leave(home: Home):
    with person(home, "chat", "--model", "offline") as somebody:
        somebody.sees(PROMPT)
        somebody.press(CTRL_C)
        somebody.sees("Ctrl-C again leaves")
        somebody.sees(PROMPT)
        somebody.press("count words in a.txt" + ENTER)
        somebody.sees("finished")
        somebody.sees(PROMPT)
        somebody.press("never said")
        somebody.sees("said")
        somebody.press(CTRL_C)
        somebody.sees(PROMPT)
        somebody.press(CTRL_C)
        somebody.sees("Ctrl-C again leaves")
        somebody.sees(PROMPT)
        somebody.press("never said")
        somebody.sees("said")
        somebody.press(CTRL_C)
        somebody.sees(PROMPT)
        somebody.press(CTRL_C)
        somebody.sees("Ctrl-C again leaves")
        somebody.sees(PROMPT)
        somebody.press("count words in a.txt" + ENTER)
        somebody.sees("a.txt has 3 words")
        somebody.sees(PROMPT)
        somebody.press(CTRL_D)
        assert somebody.leaves_with() == 0
    assert "never said" not in home.polypod("log", home.session()).out


@pytest.mark.parametrize("newline", [ALT_ENTER, CTRL_J])
def test_words_of_several_lines_are_one_turn(home: Home, newline: str):
    with person(home, "chat", "--model", "offline") as somebody:
        somebody.sees(PROMPT)
        somebody.press(f"hello{newline}count words in a.txt{ENTER}")
        somebody.sees("finished")
        somebody.sees(PROMPT)
        somebody.press(CTRL_D)
        assert somebody.leaves_with() == 0
    [said] = [event for event in home.polypod("events", "--json").lines if event["type"] == "UserMessage"]
    assert said["item"]["content"][0]["text"] == "hello\ncount words in a.txt"


def test_what_cannot_be_said_or_done_is_reported_and_the_chat_goes_on(home: Home):
    with person(home, "chat", "--model", "offline") as somebody:
        somebody.sees(PROMPT)
        somebody.press("/usr/bin/env is what?" + ENTER)
        somebody.sees("no such command: /usr/bin/env")
        somebody.sees("// in front")
        somebody.sees(PROMPT)
        somebody.press("//usr/bin/env is what?" + ENTER)
        somebody.sees("finished")
        somebody.sees(PROMPT)
        somebody.press_bytes(b"caf\xe9 \xed\xa0\x80" + ENTER.encode())
        somebody.sees("finished")
        somebody.sees(PROMPT)
        somebody.press("/exit now" + ENTER)
        assert somebody.leaves_with() == 0
    said = [event for event in home.polypod("events", "--json").lines if event["type"] == "UserMessage"]
    assert said[0]["item"]["content"][0]["text"] == "/usr/bin/env is what?"


def test_a_chat_from_a_pipe_goes_on_behind_a_line_that_cannot_be_taken(home: Home):
    with home.start("chat", "--model", "offline", stdin=subprocess.PIPE, text=False) as chat:
        out, err = chat.communicate(
            b"x" * (LONGEST_LINE + 5) + b"\n\xff\xfe\n/nope\ncount words in a.txt\n", timeout=25
        )
    assert chat.returncode == 0, err[-500:]
    assert b"a.txt has 3 words" in out
    assert b"is too long for a turn" in err
    assert b"no such command: /nope" in err


def test_ctrl_c_in_a_turn_cancels_it_and_the_chat_goes_on(home: Home):
    with (
        silent_server() as (url, came),
        person(home, "chat", "--model", "openai/m", "--base-url", url) as somebody,
    ):
        somebody.sees(PROMPT)
        somebody.press("hello" + ENTER)
        somebody.sees("thinking…")
        assert came.wait(PATIENCE)
        somebody.press(CTRL_C)
        somebody.sees("cancelled")
        somebody.sees(PROMPT)
        somebody.press("/exit" + ENTER)
        assert somebody.leaves_with() == 0


def test_a_chat_helps_and_knows_what_is_no_command(home: Home):
    with person(home, "chat", "--model", "offline") as somebody:
        somebody.sees(PROMPT)
        somebody.press("/help" + ENTER)
        somebody.sees("/resume")
        somebody.press("/nonsense" + ENTER)
        somebody.sees("no such command: /nonsense")
        somebody.press("/resume" + ENTER)
        somebody.sees("no run was interrupted")


def test_a_chat_takes_up_an_interrupted_run(home: Home):
    with (
        silent_server() as (url, came),
        home.start("run", "count words in a.txt", "--model", "openai/m", "--base-url", url) as run,
    ):
        assert came.wait(PATIENCE)
        run.kill()
    session = home.session()
    with person(home, "chat", "--resume", session, "--model", "offline") as somebody:
        somebody.sees("its last run was interrupted")
        somebody.sees(PROMPT)
        somebody.press("/resume" + ENTER)
        somebody.sees("a.txt has 3 words")


def test_a_second_ctrl_c_in_a_run_kills_it_and_leaves_the_terminal_usable(home: Home):
    with (
        silent_server() as (url, came),
        person(home, "run", "hi", "--model", "openai/m", "--base-url", url) as somebody,
    ):
        assert came.wait(PATIENCE)
        somebody.sees("thinking…")
        somebody.press(CTRL_C + CTRL_C)
        assert somebody.leaves_with() == 130


def test_a_window_that_is_resized_does_not_disturb_a_run(home: Home):
    with person(home, "run", "count words in a.txt", "--model", "offline") as somebody:
        somebody.resize(20)
        somebody.process.send_signal(signal.SIGWINCH)
        somebody.sees("3 words")
        assert somebody.leaves_with() == 0


@pytest.mark.usefixtures("terminals_count")
def test_a_terminal_that_is_closed_pauses_its_run(home: Home):
    with (
        silent_server() as (url, came),
        person(home, "run", "list files", "--model", "openai/m", "--base-url", url) as somebody,
    ):
        assert came.wait(PATIENCE)
        somebody.hang_up()
        assert somebody.process.wait(PATIENCE) == 129
    assert home.polypod("ps", "--json").lines[0]["last_run"] == "paused"
    assert home.polypod("resume", home.session(), "--model", "offline").code == 0


@pytest.mark.usefixtures("terminals_count")
def test_a_terminal_that_is_closed_pauses_the_turn_of_a_chat(home: Home):
    with (
        silent_server() as (url, came),
        person(home, "chat", "--model", "openai/m", "--base-url", url) as somebody,
    ):
        somebody.sees(PROMPT)
        somebody.press("list files" + ENTER)
        assert came.wait(PATIENCE)
        somebody.hang_up()
        assert somebody.process.wait(PATIENCE) == 129
    assert home.polypod("ps", "--json").lines[0]["last_run"] == "paused"


def test_a_terminal_that_is_closed_ends_a_chat_that_waits_for_words(home: Home):
    with person(home, "chat", "--model", "offline") as somebody:
        somebody.sees(PROMPT)
        somebody.press("count words in a.txt" + ENTER)
        somebody.sees("finished")
        somebody.sees(PROMPT)
        somebody.hang_up()
        assert somebody.process.wait(PATIENCE) == 129
    assert home.polypod("ps", "--json").lines[0]["last_run"] == "finished"


@pytest.mark.usefixtures("terminals_count")
def test_the_shell_that_repeats_the_signal_of_a_closed_terminal_kills_nothing(home: Home):
    with (
        silent_server() as (url, came),
        home.start("run", "list files", "--model", "openai/m", "--base-url", url) as run,
    ):
        assert came.wait(PATIENCE)
        for _ in range(2):
            run.send_signal(signal.SIGHUP)
        run.communicate(timeout=PATIENCE)
        assert run.returncode == 129
    assert home.polypod("ps", "--json").lines[0]["last_run"] == "paused"


def test_with_nohup_a_run_goes_on_where_its_terminal_is_closed(home: Home):
    nohup = shutil.which("nohup")
    assert nohup is not None
    with (
        silent_server() as (url, came),
        person(
            home, "run", "list files", "--model", "openai/m", "--base-url", url, through=nohup
        ) as somebody,
    ):
        assert came.wait(PATIENCE)
        somebody.hang_up()
        somebody.process.send_signal(signal.SIGTERM)
        assert somebody.process.wait(PATIENCE) == 143


async def test_a_turn_that_is_cancelled_as_it_begins_leaves_the_terminal_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line editor that was just beginning put the terminal back into its own mode, after all else."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    master, slave = os.openpty()
    before = termios.tcgetattr(slave)
    with os.fdopen(slave, closefd=False) as stdin:
        for turns in range(12):
            with os.fdopen(slave, "w", closefd=False) as out:
                screen = Screen(out, out)
                prompt = Prompt(stdin, Terminal(screen.out, screen.err, screen), screen)
                steering = asyncio.create_task(hold_open(prompt))
                for _ in range(turns):
                    await asyncio.sleep(0)
                steering.cancel()
                await asyncio.wait({steering}, timeout=PATIENCE)
                assert steering.done()
                prompt.close()
                assert asyncio.all_tasks() == {asyncio.current_task()}
                assert termios.tcgetattr(slave) == before
    os.close(slave)
    os.close(master)


async def hold_open(prompt: Prompt) -> None:
    async with prompt.steering(lambda _: None):
        await asyncio.get_running_loop().create_future()
