"""A turn of a chat that goes on while a person types: steering, questions, signals."""

import signal

import pytest
from command_kit import Home
from model_kit import model_server
from person import CTRL_C, CTRL_D, ENTER, PATIENCE, PROMPT, person

from actors.llm.scripted import call, say

MARKDOWN = (
    "# Title\n\nSome *text* with `code`, a <b>tag</b>.\n\n- one\n- two\n\n```python\nx = 1\n```\n\nDone."
)


@pytest.mark.parametrize("columns", [40, 100])
@pytest.mark.parametrize("env", [{}, {"NO_COLOR": "1"}], ids=["colours", "plain"])
def test_words_that_are_sent_in_a_turn_join_it(home: Home, columns: int, env: dict[str, str]):
    home.env |= env
    with (
        model_server(say("one moment"), say("both then")) as model,
        person(home, "chat", *model.options, columns=columns) as somebody,
    ):
        somebody.sees(PROMPT)
        model.let.clear()
        somebody.press("hello" + ENTER)
        assert model.came.wait(PATIENCE)
        somebody.sees("thinking…")
        somebody.press("and this too" + ENTER)
        somebody.sees("> and this too")
        somebody.press("/cost" + ENTER)
        somebody.sees("(after this turn)")
        somebody.press("half a sent")
        somebody.sees("sent")
        model.let.set()
        somebody.sees("both then")
        somebody.sees("finished")
        somebody.sees("context")
        somebody.sees("half a sent")
        somebody.press(CTRL_C)
        somebody.sees(PROMPT)
        somebody.press(CTRL_D)
        assert somebody.leaves_with() == 0
    assert [asked["messages"][-1]["content"] for asked in model.asked] == ["hello", "and this too"]


def test_ctrl_d_in_a_turn_leaves_once_it_has_ended(home: Home):
    with model_server(say("done")) as model, person(home, "chat", *model.options) as somebody:
        somebody.sees(PROMPT)
        model.let.clear()
        somebody.press("hello" + ENTER)
        assert model.came.wait(PATIENCE)
        somebody.sees("thinking…")
        somebody.press(CTRL_D)
        somebody.sees("leaving when this turn ends")
        model.let.set()
        somebody.sees("done")
        assert somebody.leaves_with() == 0
    assert home.polypod("ps", "--json").lines[0]["last_run"] == "finished"


def test_a_second_ctrl_c_in_a_turn_leaves_at_once_and_says_how_to_go_on(home: Home):
    with model_server(say("never")) as model:
        with person(home, "chat", *model.options) as somebody:
            somebody.sees(PROMPT)
            model.let.clear()
            somebody.press("hello" + ENTER)
            assert model.came.wait(PATIENCE)
            somebody.sees("thinking…")
            somebody.press(CTRL_C + CTRL_C)
            somebody.sees("continue with: polypod chat --resume")
            assert somebody.leaves_with() == 130
            assert somebody.takes_lines()
        model.let.set()
    assert home.polypod("chat", "--continue", words="/resume\n").code == 0


def test_a_question_in_a_turn_has_the_keyboard_and_the_turn_goes_on(home: Home):
    home.write(
        "pod.toml",
        '[tools]\nbuiltin = ["files"]\n[[scope.allow]]\ntarget = "."\npermission = "write"\n'
        '[[approval]]\ntool = "write_file"\npolicy = "ask"\n',
    )
    with (
        model_server(call("write_file", {"path": "a.txt", "content": "x"}), say("written")) as model,
        person(home, "chat", "--manifest", "pod.toml", *model.options) as somebody,
    ):
        somebody.sees(PROMPT)
        somebody.press("write it" + ENTER)
        somebody.sees("allows it")
        somebody.press("y" + ENTER)
        somebody.sees("written")
        somebody.sees("finished")
        somebody.sees(PROMPT)
        somebody.press(CTRL_D)
        assert somebody.leaves_with() == 0
    assert (home.folder / "a.txt").read_text() == "x"


@pytest.mark.parametrize("columns", [40, 100])
@pytest.mark.parametrize("env", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["colours", "plain", "dumb"])
def test_markdown_and_edits_are_rendered_as_far_as_the_terminal_can(
    home: Home, columns: int, env: dict[str, str]
):
    home.env |= env
    home.write("a.txt", "one\ntwo\n")
    edit = call("edit_file", {"path": "a.txt", "old": "two", "new": "zwei"})
    with (
        model_server(edit, say(MARKDOWN, chunks=30)) as model,
        person(home, "chat", *model.options, columns=columns) as somebody,
    ):
        somebody.sees("> " if "TERM" in env else PROMPT)
        somebody.press("go" + ENTER)
        somebody.sees("-two")
        red = somebody.before.rpartition("\n")[2]
        somebody.sees("+zwei")
        somebody.sees("Title")
        heading = somebody.before.rpartition("\n")[2]
        somebody.sees("<b>tag</b>")
        somebody.sees("x = 1" if env else "x")
        somebody.sees("Done.")
        somebody.sees("finished")
        somebody.sees("> " if "TERM" in env else PROMPT)
        somebody.press(CTRL_D)
        assert somebody.leaves_with() == 0
    assert ("\x1b[31m" in red) == (not env)
    assert ("# " in heading) == (env.get("TERM") == "dumb")


def test_a_tool_that_asks_at_the_keyboard_itself_has_it_in_a_turn(home: Home):
    home.write(
        "mine.py",
        "from polypod import tool\n\n\n@tool(concurrency='interactive')\ndef ask() -> str:\n"
        '    """Ask the person."""\n    return input("who are you? ")\n',
    )
    with person(home, "chat", "--model", "offline", "--tools", "mine.py") as somebody:
        somebody.sees(PROMPT)
        somebody.press("use ask" + ENTER)
        somebody.sees("who are you? ")
        somebody.press("Ada of London" + ENTER)
        somebody.sees("ask() → 13 B")
        somebody.sees("finished")
        somebody.sees(PROMPT)
        somebody.press(CTRL_D)
        assert somebody.leaves_with() == 0


def test_a_chat_that_was_killed_goes_on_where_it_stood(home: Home):
    home.write("a.txt", "one two three\n")
    with model_server(say("never")) as model:
        with person(home, "chat", *model.options) as somebody:
            somebody.sees(PROMPT)
            model.let.clear()
            somebody.press("count words in a.txt" + ENTER)
            assert model.came.wait(PATIENCE)
            somebody.process.kill()
        model.let.set()
    with person(home, "chat", "--continue", "--model", "offline") as somebody:
        somebody.sees("> count words in a.txt")
        somebody.sees("/resume continues it")
        somebody.sees(PROMPT)
        somebody.press("/undo" + ENTER)
        somebody.sees("continue it with /resume")
        somebody.press("/resume" + ENTER)
        somebody.sees("3 words")
        somebody.sees("finished")


def test_a_long_paste_is_one_turn_and_a_window_may_change_its_size_meanwhile(home: Home):
    paste = "".join(f"line {n}\r" for n in range(3000))
    with model_server(say("much")) as model, person(home, "chat", *model.options) as somebody:
        somebody.sees(PROMPT)
        model.let.clear()
        for start in range(0, len(paste), 2000):  # as much as a terminal takes at once
            somebody.press((("\x1b[200~") if not start else "") + paste[start : start + 2000])
        somebody.press("\x1b[201~" + ENTER)
        assert model.came.wait(PATIENCE)
        somebody.resize(33)
        somebody.process.send_signal(signal.SIGWINCH)
        model.let.set()
        somebody.sees("much")
        somebody.sees("finished")
    assert len(model.asked) == 1
    assert model.asked[0]["messages"][-1]["content"].count("line ") == 3000
