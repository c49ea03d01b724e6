"""The options of ``run`` and ``chat`` that people of other tools reach for."""

import base64
import json

import pytest
from command_kit import Home
from model_kit import model_server

from actors.llm.scripted import Reply, call, say

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)


def test_continue_goes_on_with_the_last_session_of_this_folder(home: Home):
    home.run("list files")
    here = home.session()
    other = home.folder / "other"
    other.mkdir()
    with home.start("run", "list files", "--model", "offline", cwd=other) as elsewhere:
        elsewhere.communicate(timeout=60)
    done = home.polypod("run", "count words in a.txt", "--continue", "--json")
    assert {event["session_id"] for event in done.lines} == {here}
    chat = home.polypod("chat", "-c", words="hello\n")
    assert f"session {here}" in chat.err


def test_continue_where_there_is_no_session_says_what_to_do(home: Home):
    done = home.polypod("run", "hi", "--continue")
    assert (done.code, done.out) == (2, "")
    assert "--resume ID" in done.err
    home.run("hi")
    both = home.polypod("chat", "--continue", "--resume", "last")
    assert (both.code, "exclude each other" in both.err) == (2, True)
    system = home.polypod("run", "hi", "--continue", "--system", "x")
    assert (system.code, "--system" in system.err) == (2, True)


def test_system_steps_and_budget_are_of_the_pod(home: Home):
    done = home.run(
        "list files", "--system", "Be \udc80brief.", "--max-steps", "3", "--budget", "200k", "--budget", "10min"
    )  # fmt: skip
    assert done.code == 0, done.err
    manifest = home.polypod("show", "last", "--json").lines[0]["manifest"]
    assert manifest["pod"]["system_prompt"].startswith("Be ")
    assert manifest["worker"] == {"max_steps": 3}
    assert manifest["budget"] == {"tokens": 200_000, "seconds": 600.0}


def test_a_step_limit_and_a_budget_end_a_run_with_their_code(home: Home):
    home.write("a.txt", "one two three\n")
    assert home.run("count words in a.txt", "--max-steps", "1").code == 3
    assert home.run("count words in a.txt", "--budget", "50").code == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--budget", "10m"], "write $0.50"),
        (["--budget", "5k", "--budget", "6k"], "given twice"),
        (["--max-steps", "0"], "max-steps"),
        (["--image", "nowhere.png"], "No such file"),
        (["--image", "a.txt"], "PNG, JPEG, GIF or WebP"),
        (["--schema", "{"], "not JSON"),
        (["--schema", '{"not": {}}'], "cannot be checked"),
        (["-q", "-v"], "exclude each other"),
        (["-q", "--json"], "exclude each other"),
        (["--no-tools"], "continuing a session"),
    ],
)
def test_a_value_that_cannot_be_is_refused_and_nothing_is_run(home: Home, options: list[str], words: str):
    home.write("a.txt", "no picture")
    done = home.run("hi", *options)
    assert (done.code, words in done.err) == (2, True), done
    assert home.polypod("ps", "--json").out == ""


def test_a_picture_goes_with_the_words(home: Home):
    (home.folder / "a.png").write_bytes(PNG)
    with model_server(say("a cat")) as model:
        done = home.polypod(
            "run", "what is it?", "--image", "a.png", "--image", "https://example.com/b.jpg", *model.options
        )
    assert done.out == "a cat\n"
    [words, picture, address] = model.asked[0]["messages"][-1]["content"]
    assert words["text"] == "what is it?"
    assert picture["image_url"]["url"] == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert address["image_url"]["url"] == "https://example.com/b.jpg"


def test_files_and_what_comes_from_a_pipe_go_with_the_words(home: Home):
    home.write("notes.md", "the boat is red")
    (home.folder / "a.png").write_bytes(PNG)
    with model_server(say("fine")) as model:
        done = home.polypod(
            "run", "Review this", "-f", "notes.md", "--file", "-", "-f", "a.png", *model.options, words="piped words"
        )  # fmt: skip
    assert done.out == "fine\n", done.err
    words, notes, piped, picture = model.asked[0]["messages"][-1]["content"]
    assert words["text"] == "Review this"
    assert "the boat is red" in notes["text"]
    assert "--- standard input ---\npiped words" in piped["text"]
    assert picture["type"] == "image_url"
    (home.folder / "b.bin").write_bytes(bytes(100))
    for wrong in (["-f", "b.bin"], ["-f", "nowhere"]):
        assert home.run("hi", *wrong).code == 2
    assert home.polypod("run", "-", "-f", "-", "--model", "offline", words="x").code == 2


def test_an_answer_of_a_schema_is_json_alone_on_standard_output(home: Home):
    answer = 'Gladly: ```json\n{"name": "Ada", "age": 36}\n```'
    with model_server(say("no idea"), say(answer)) as model:
        done = home.polypod("run", "who?", "--schema", "name, age int", *model.options)
    assert done.out == '{"name":"Ada","age":36}\n'
    assert '"required":["name","age"]' in model.asked[0]["messages"][-1]["content"]  # it has tools
    home.write("bare.toml", '[pod]\nname = "bare"\n')
    bare = ("--manifest", "bare.toml", "--json")
    with model_server(say(answer)) as model:
        done = home.polypod("run", "who?", "--schema", "name, age int", *bare, *model.options)
    assert model.asked[0]["response_format"]["json_schema"]["schema"]["required"] == ["name", "age"]
    assert done.lines[-1]["output"] == {"name": "Ada", "age": 36}
    home.write("schema.json", json.dumps({"type": "array", "items": {"type": "integer"}}))
    with model_server(say('{"value": [1, 2]}')) as model:
        assert home.polypod("run", "x", "-q", "--schema", "schema.json", *model.options).out == "[1,2]\n"


def test_quiet_is_the_answer_alone_and_verbose_shows_results_and_reasoning(home: Home):
    home.write("a.txt", "one two three\n")
    quiet = home.run("count words in a.txt", "-q")
    assert "3 words" in quiet.out
    assert quiet.err == ""
    verbose = home.run("count words in a.txt", "-v")
    assert verbose.out == quiet.out
    assert "  | " in verbose.err
    assert verbose.err.count(" tokens in") >= 3
    assert (
        "the run failed"
        in home.polypod("run", "hi", "-q", "-m", "openai/m", "--base-url", "http://127.0.0.1:9/v1").err
    )


def test_words_on_the_way_are_no_answer(home: Home):
    wish = call("glob", {"pattern": "*"})
    both = Reply((*say("let me see").blocks, *wish.blocks), wish.usage, wish.stop_reason)
    with model_server(both, say("nothing")) as model:
        done = home.polypod("run", "look", *model.options)
    assert done.out == "nothing\n"
    assert "let me see" in done.err


def test_sessions_are_listed_with_their_task_folder_model_and_cost(home: Home):
    home.run("list files")
    home.run("hello there, what can you do?")
    rows = home.polypod("ps", "--json").lines
    assert rows[0]["task"] == "hello there, what can you do?"
    assert (rows[0]["folder"], rows[0]["model"], rows[0]["cost"]) == (str(home.folder), "offline", 0.0)
    listed = home.polypod("ps").out
    assert "TASK" in listed.splitlines()[0]
    assert str(home.folder) in listed
    assert "$0.00" in listed


def test_a_compacted_session_is_known_by_what_it_began_with(home: Home):
    home.run("list files")
    home.polypod("compact", "last", "--retain", "0")
    assert home.polypod("ps", "--json").lines[0]["task"] == "list files"


def test_a_dry_run_of_gc_lists_what_would_go_and_deletes_nothing(home: Home):
    home.run("list files")
    session = home.session()
    dry = home.polypod("gc", "--older-than", "0s", "--dry-run")
    assert session in dry.out
    assert "list files" in dry.out
    assert "1 session would be deleted" in dry.err
    assert home.polypod("gc", "--older-than", "0s", "--dry-run", "--json").lines[0]["session_id"] == session
    assert home.session() == session


def test_the_short_forms_are_those_of_other_tools(home: Home):
    done = home.polypod("run", "list files", "-m", "offline", "-s", "Be brief.", "-q")
    assert (done.code, done.err) == (0, "")
