"""A command whose pod gives work to sub-agents: it shows what they do, waits for them, and pauses them with itself."""

import os
import re
import signal
from pathlib import Path

import pytest
from command_kit import Home
from person import CTRL_C, person

MANIFEST = """
[pod]
name = "lead"
[model]
scheme = "offline"
[tools]
builtin = ["files", "shell", "pods"]
[[scope.allow]]
target = "."
permission = "read"
"""
COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
#: Waits until the file ``go`` is there.
GATE = "until test -e go; do sleep 0.05; done"


def spawn(task: str) -> str:
    scope = '{"allow":[{"target":".","permission":"read"}]}'
    return f"use spawn_pod name=reader instruction=reader scope='{scope}' task='{task}'"


def at_home(folder: Path, more: str = "") -> Home:
    home = Home(folder)
    home.write("lead.toml", MANIFEST + more)
    home.write("a.txt", "one two three\n")
    return home


@pytest.mark.parametrize("columns", [100, 40])
def test_a_person_sees_what_sub_agents_do_a_line_each_and_the_answer_once_they_have_ended(
    tmp_path: Path, columns: int
) -> None:
    home = at_home(tmp_path)
    with person(
        home, "run", spawn("count words in a.txt"), "--manifest", "lead.toml", columns=columns
    ) as somebody:
        for words in (
            "▸ reader starts: count words",
            "▸ reader ✓ count_words(",
            "▸ reader has ended, finished",
            "The sub-agent reader has ended: finished.",
            "3 words",
            "finished · ",
        ):
            somebody.sees(words)
            if words.startswith("▸"):
                line = (somebody.before + words).rpartition("\n")[2] + somebody.seen.partition("\r")[0]
                assert len(COLOURS.sub("", line).rpartition("\r")[2]) < columns
        assert somebody.leaves_with() == 0


def test_without_a_terminal_the_last_answer_alone_goes_to_standard_output(tmp_path: Path) -> None:
    home = at_home(tmp_path)
    done = home.polypod("run", spawn("count words in a.txt"), "--manifest", "lead.toml")
    assert done.code == 0
    assert done.out.startswith("The sub-agent reader has ended: finished.\n")
    assert "spawn_pod answered" in done.err
    assert "▸ reader ✓ count_words(path='a.txt')" in done.err
    events = home.polypod("run", spawn("count words in a.txt"), "--manifest", "lead.toml", "--json").lines
    assert events[-1]["type"] == "RunResult"
    assert events[-1]["text"].startswith("The sub-agent reader has ended")
    assert {each["pod"] for each in events[:-1]} == {"lead", "lead.reader"}


def test_the_result_of_the_run_that_sub_agents_ends_begin_has_all_that_its_end_says(tmp_path: Path) -> None:
    home = at_home(tmp_path)
    *events, result = home.polypod("run", spawn("count words"), "--manifest", "lead.toml", "--json").lines
    [end] = [each for each in events if each["type"] == "RunEnd" and each["run_id"] == result["run_id"]]
    answers = [
        each for each in events if each["type"] == "AssistantMessage" and each["run_id"] == result["run_id"]
    ]
    assert (result["steps"], result["seconds"], result["limit"]) == (len(answers), end["seconds"], None)
    assert result["cost"] == sum(each["cost"] for each in answers)


def test_a_sub_agent_whose_call_has_to_be_asked_for_is_denied_it_where_nobody_can_be_asked(
    tmp_path: Path,
) -> None:
    home = at_home(tmp_path, '[[approval]]\ntool = "count_words"\npolicy = "ask"\n')
    done = home.polypod("run", spawn("count words in a.txt"), "--manifest", "lead.toml")
    assert done.code == 0
    assert "nobody can be asked here" in done.out


def test_ctrl_c_pauses_the_sub_agents_that_are_waited_for_and_resume_goes_on_with_all(tmp_path: Path) -> None:
    home = at_home(tmp_path)
    with person(
        home, "run", spawn(f"run {GATE}; then count words in a.txt"), "--manifest", "lead.toml"
    ) as somebody:
        somebody.sees("waiting for reader")
        somebody.press(CTRL_C)
        somebody.sees("paused · ")
        somebody.sees("continue with: polypod resume")
        assert somebody.leaves_with() == 130
    home.write("go", "")
    with person(home, "resume", "last") as somebody:
        somebody.sees("▸ reader has ended, finished")
        somebody.sees("The sub-agent reader has ended: finished.")
        assert somebody.leaves_with() == 0
    assert home.polypod("resume", "last").code == 2  # nothing is left to go on with


def test_sigterm_pauses_the_sub_agents_too(tmp_path: Path) -> None:
    home = at_home(tmp_path)
    with home.start("run", spawn(f"run {GATE}"), "--manifest", "lead.toml") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("▸ reader I run"):
                break
        os.kill(process.pid, signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "continue with: polypod resume" in err
    sessions = {each["pod"]: each["last_run"] for each in home.polypod("ps", "--json").lines}
    assert sessions["lead.reader"] == "paused"
    home.write("go", "")
    done = home.polypod("resume", "last")
    assert (done.code, "The sub-agent reader has ended" in done.out) == (0, True)


@pytest.mark.parametrize("how", [(), ("--json",)])
def test_sub_agents_of_a_run_that_fails_are_paused_and_resume_goes_on_with_them(
    tmp_path: Path, how: tuple[str, ...]
) -> None:
    home = at_home(tmp_path, "[worker]\nmax_repeats = 2\n")
    again = "; then use list_files path=nope" * 3
    done = home.polypod("run", spawn(f"run {GATE}") + again, "--manifest", "lead.toml", *how)
    assert done.code == 1
    assert "paused: reader; continue with: polypod resume" in done.err
    sessions = {each["pod"]: each["last_run"] for each in home.polypod("ps", "--json").lines}
    assert sessions == {"lead": "failed", "lead.reader": "paused"}
    home.write("go", "")
    done = home.polypod("resume", "last")
    assert (done.code, "The sub-agent reader has ended: finished." in done.out) == (0, True)
