"""The commands of a chat, its files and its shell, by a person at a terminal."""

import json
import os
import re
from pathlib import Path

import pytest
from command_kit import Home
from model_kit import model_server
from person import CTRL_C, CTRL_D, ENTER, PROMPT, Person, person

from actors.llm.scripted import call, say

OFFLINE = ("--model", "offline")


def enter(somebody: Person, line: str, *words: str) -> None:
    """Type a line, and wait for words and the next prompt."""
    somebody.press(line + ENTER)
    for each in words:
        somebody.sees(each)


def leaves(somebody: Person) -> None:
    somebody.sees(PROMPT)
    somebody.press(CTRL_D)
    assert somebody.leaves_with() == 0


@pytest.mark.parametrize("columns", [40, 100])
@pytest.mark.parametrize("env", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["colours", "plain", "dumb"])
def test_a_chat_goes_through_its_commands_at_any_terminal(home: Home, columns: int, env: dict[str, str]):
    home.env |= env
    home.write("a.txt", "one two three\n")
    with person(home, "chat", *OFFLINE, columns=columns) as somebody:
        somebody.sees("> " if "TERM" in env else PROMPT)
        enter(somebody, "count words in a.txt", "3 words", "finished")
        enter(somebody, "/cost", "tokens in", "context", "session")
        enter(somebody, "/tools", "count_words", "write_file")
        enter(somebody, "/model", "answers now: offline", "chooses one")
        enter(somebody, "/compact 5000", "before, ", "continues in")
        enter(somebody, "/fork", "continues in session")
        enter(somebody, "/clear", "the previous one is kept")
        enter(somebody, "/nope", "/help lists them")
        enter(somebody, "/exot", "did you mean /exit?")
        somebody.press("/exit" + ENTER)
        assert somebody.leaves_with() == 0
        assert "Traceback" not in somebody.written
        assert ("\x1b" in somebody.written) == ("TERM" not in env)
        assert not (env and re.search(r"\x1b\[[0-9;]*[34][0-7]m", somebody.written))
    stored = home.polypod("ps", "--json").lines
    assert len(stored) == 3  # the first one, the compacted one and its fork; the new one had nothing in it


def test_another_model_answers_in_the_same_session_and_one_that_there_is_not_changes_nothing(home: Home):
    with model_server(say("I am the other one")) as model, person(home, "chat", *OFFLINE) as somebody:
        somebody.sees(PROMPT)
        enter(somebody, "hello", "finished")
        enter(somebody, "/model nonsense/x", "unknown scheme", "known schemes")
        enter(somebody, "hello again", "finished")
        enter(somebody, f"/model openai/m {model.url}", "answers from now on: openai/m")
        enter(somebody, "/model openai/small", "answers from now on: openai/small")
        enter(somebody, "and you?", "I am the other one", "finished")
        enter(somebody, "/model offline", "answers from now on: offline")
        enter(somebody, "help", "finished")
        leaves(somebody)
    [asked] = model.asked
    assert asked["model"] == "small"
    assert [each["content"] for each in asked["messages"] if each["role"] == "user"] == [
        "hello", "hello again", "and you?",
    ]  # fmt: skip


def test_a_turn_is_taken_back_and_its_words_are_there_to_be_changed(home: Home):
    with (
        model_server(say("first"), say("second"), say("third")) as model,
        person(home, "chat", *model.options) as somebody,
    ):
        somebody.sees(PROMPT)
        enter(somebody, "one", "first", "finished")
        enter(somebody, "two", "second", "finished")
        enter(somebody, "/undo", "took back: two", "files are unchanged", PROMPT)
        enter(somebody, " and a half", "third", "finished")
        enter(somebody, "/undo", "took back: two and a half", PROMPT)
        somebody.press(CTRL_C)
        enter(somebody, "/undo", "took back: one", PROMPT)
        somebody.press(CTRL_C)
        enter(somebody, "/undo", "no turn to undo")
        leaves(somebody)
        said = [
            [each["content"] for each in asked["messages"] if each["role"] == "user"] for asked in model.asked
        ]
    assert said == [["one"], ["one", "two"], ["one", "two and a half"]]


def test_files_that_are_named_go_with_the_words_and_the_scope_holds(home: Home):
    home.write("notes.md", "the boat is red\n")
    outside = home.folder.parent / "outside.txt"
    outside.write_text("not for you")
    (home.folder / ".env").write_text("KEY=1")
    (home.folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(8))
    with (
        model_server(say("red"), say("a cat")) as model,
        person(home, "chat", *model.options) as somebody,
    ):
        somebody.sees(PROMPT)
        enter(somebody, "what colour? @notes.md.", "@notes.md: 16 B", "red", "finished")
        enter(somebody, f"and @{outside}", "not allowed to read", PROMPT)
        somebody.press(CTRL_C)
        enter(somebody, "and @.env", "not allowed to read", PROMPT)
        somebody.press(CTRL_C)
        enter(somebody, "what is @a.png, me@example.com @nowhere", "@a.png: a picture", "a cat", "finished")
        leaves(somebody)
    first, second = (asked["messages"][-1]["content"] for asked in model.asked)
    assert "the boat is red" in json.dumps(first)
    assert second[-1]["type"] == "image_url"
    assert "not for you" not in json.dumps(model.asked)
    assert "KEY=1" not in json.dumps(model.asked)


def test_files_and_commands_are_completed_within_the_scope(home: Home):
    home.write("chapter one.md", "x")
    (home.folder / ".env").write_text("KEY=1")
    with person(home, "chat", *OFFLINE) as somebody:
        somebody.sees(PROMPT)
        somebody.press("@cha")
        somebody.sees("chapter one.md")
        somebody.press("\t" + ENTER)
        somebody.sees('@"chapter one.md"')
        somebody.sees("@chapter one.md: 1 B")
        somebody.sees("finished")
        somebody.sees(PROMPT)
        somebody.press("/mod")
        somebody.sees("answer with another model")
        somebody.press("\t" + ENTER)
        somebody.sees("answers now")
        somebody.sees(PROMPT)
        somebody.press("@.e\t ok" + ENTER)
        somebody.sees("finished")
        leaves(somebody)
    said = [event for event in home.polypod("events", "--json").lines if event["type"] == "UserMessage"]
    assert said[-1]["item"]["content"][0]["text"] == "@.e ok"


def test_what_a_command_of_the_person_writes_goes_with_the_next_words(home: Home):
    with (
        model_server(say("I see"), say("nothing more")) as model,
        person(home, "chat", *model.options) as somebody,
    ):
        somebody.sees(PROMPT)
        enter(somebody, "!echo $((6 * 7)); cat /etc/hostname-not-there; touch made", "42", "exit code")
        enter(somebody, "what was that?", "I see", "finished")
        enter(somebody, "and now?", "nothing more", "finished")
        leaves(somebody)
    first, second = (json.dumps(asked["messages"][-1]["content"]) for asked in model.asked)
    assert "42" in first
    assert "42" not in second
    assert (home.folder / "made").exists()


def test_a_command_of_the_person_ends_with_ctrl_c_and_where_no_shell_is_it_is_refused(home: Home):
    with person(home, "chat", *OFFLINE) as somebody:
        somebody.sees(PROMPT)
        somebody.press("!echo begun; sleep 60" + ENTER)
        somebody.sees("sleep 60…")
        somebody.press(CTRL_C)
        somebody.sees("cancelled")
        enter(somebody, "hello", "finished")
        leaves(somebody)
    home.write("pod.toml", '[tools]\nbuiltin = ["files"]\n')
    with person(home, "chat", "--manifest", "pod.toml", *OFFLINE) as somebody:
        somebody.sees(PROMPT)
        enter(somebody, "!ls", "this pod cannot run commands")
        leaves(somebody)
    home.write(
        "pod.toml",
        '[tools]\nbuiltin = ["shell"]\n[[approval]]\ntool = "shell"\npolicy = "deny"\nmatch = { command = "rm *" }\n',
    )
    with person(home, "chat", "--manifest", "pod.toml", *OFFLINE) as somebody:
        somebody.sees(PROMPT)
        enter(somebody, "!rm -rf x", "was not run: the rule deny")
        leaves(somebody)


def test_earlier_talk_is_shown_where_a_session_is_taken_up_again(home: Home):
    with model_server(say("**bold** answer"), call("glob", {"pattern": "*"}), say("fine")) as model:
        home.polypod("run", "first question", *model.options)
        home.polypod("run", "second question", "--continue", "-m", "openai/m", "--base-url", model.url)
    for name in ("first", "plain"):
        with person(home, "chat", "--continue", *OFFLINE) as somebody:
            somebody.sees("> first question")
            somebody.sees("bold")
            somebody.sees("> second question")
            somebody.sees("glob(")
            somebody.sees("fine")
            leaves(somebody)
        assert name
        home.env["NO_COLOR"] = "1"


def test_a_chat_from_a_pipe_has_the_same_commands(home: Home):
    home.write("a.txt", "one two three\n")
    done = home.polypod(
        "chat", *OFFLINE, words="!echo 4711\ncount words in a.txt\n/undo\n/cost\n/exit\nnever\n"
    )
    assert done.code == 0
    assert "3 words" in done.out
    assert "4711" in done.err
    assert "took back: count words in a.txt" in done.err
    assert "never" not in done.err + done.out


def test_backslash_and_enter_begin_a_new_line(home: Home):
    with person(home, "chat", *OFFLINE) as somebody:
        somebody.sees(PROMPT)
        somebody.press("hello\\" + ENTER + "help" + ENTER)
        somebody.sees("finished")
        leaves(somebody)
    [said] = [event for event in home.polypod("events", "--json").lines if event["type"] == "UserMessage"]
    assert said["item"]["content"][0]["text"] == "hello\nhelp"


def test_the_footer_names_model_tokens_cost_and_folder(home: Home, tmp_path: Path):
    with person(home, "chat", *OFFLINE) as somebody:
        somebody.sees("offline · 0 tokens · ~/work")
        enter(somebody, "help", "finished", "k tokens · ~/work")
        somebody.press(CTRL_D)
        assert somebody.leaves_with() == 0
    assert tmp_path == home.folder.parent


def test_a_chat_that_is_left_without_a_word_leaves_no_session(home: Home):
    with person(home, "chat", *OFFLINE) as somebody:
        somebody.sees(PROMPT)
        enter(somebody, "/model offline", "answers from now on")
        enter(somebody, "/clear", "session")
        leaves(somebody)
        assert "the previous one is kept" not in somebody.written
    assert home.polypod("ps", "--json").lines == []
    with person(home, "chat", *OFFLINE) as somebody:
        somebody.sees(PROMPT)
        somebody.process.terminate()
        assert somebody.leaves_with() == 143
        assert "no session is kept" in somebody.written
    assert home.polypod("ps", "--json").lines == []


def test_a_session_that_was_there_before_stays_though_nothing_is_said_in_it(home: Home):
    home.run("list files")
    with person(home, "chat", "--continue") as somebody:
        enter(somebody, "/clear", "the previous one is kept")
        leaves(somebody)
    [row] = home.polypod("ps", "--json").lines
    assert row["task"] == "list files"


def test_a_chat_that_is_left_leaves_its_pipe_as_it_was_to_who_reads_on(home: Home):
    reading, writing = os.pipe()
    with open(reading, "rb"), open(writing, "wb") as words:  # noqa: PTH123 - of descriptors
        words.write(b"hello\n/exit\n")
        words.flush()
        with home.start("chat", *OFFLINE, stdin=reading) as process:
            process.communicate(timeout=60)
        assert process.returncode == 0
        assert os.get_blocking(reading)
