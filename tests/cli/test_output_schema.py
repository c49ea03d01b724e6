"""What ``--json`` prints is what ``polypod schema`` says, line by line."""

import json
from collections.abc import Iterator
from typing import Any

import click
import jsonschema
import pytest
from command_kit import Home
from model_kit import model_server

from actors.cli.display.help_format import each_command
from actors.cli.main import polypod
from actors.cli.schema import full_schema, output_kinds
from actors.llm.scripted import call, say

SCHEMA = json.loads(json.dumps(full_schema()))
#: Commands of which a line is printed here; S is a session, F a file with one exported.
COMMANDS = {
    "run": ["run hi --model offline", "run hi --model openai/m --base-url http://127.0.0.1:9/v1"],
    "resume": ["resume S hello"],
    "chat": ["chat --model offline"],
    "events": ["events"],
    "ps": ["ps"],
    "show": ["show S"],
    "log": ["log S"],
    "log --tree": ["log S --tree"],
    "fork": ["fork S"],
    "compact": ["compact S --retain 0"],
    "gc": ["gc --older-than 0s --dry-run"],
    "memory list": ["memory list"],
    "memory show": ["memory show boats"],
    "memory search": ["memory search boat"],
    "models": ["models"],
    "doctor": ["doctor"],
    "config check": ["config check"],
    "pool": ["pool add one do-it", "pool ls", "pool cancel one-1", "pool gc --older-than 0s"],
    "bench": ["bench --turns 2 --model offline"],
}


def check(command: str, line: Any) -> None:
    shape = SCHEMA["properties"]["output"]["properties"][command]
    jsonschema.Draft202012Validator({"$defs": SCHEMA["$defs"], **shape}).validate(line)


class WithSession(Home):
    """A person's folder with a session on the embedded model, the first one."""

    first = ""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> WithSession:
    home = WithSession(tmp_path_factory.mktemp("schema"))
    home.write("a.txt", "one two three\n")
    notes = home.state / "polypod" / "memory" / "knowledge"
    notes.mkdir(parents=True)
    (notes / "boats.md").write_text("---\ntitle: The boat\n---\nThe boat is red.\n")
    home.run("count words in a.txt")
    home.first = home.session()
    return home


@pytest.mark.parametrize("command", COMMANDS)
def test_each_line_is_as_the_schema_says(home: WithSession, command: str):
    session = home.first
    for typed in COMMANDS[command]:
        words = [session if word == "S" else word for word in typed.split()]
        done = home.polypod(*words, "--json", words="hello\n" if command == "chat" else "")
        assert done.lines, (typed, done)
        for line in done.lines:
            check(command, line)


def test_a_session_that_is_moved_and_a_call_that_waits_are_too(home: WithSession):
    home.polypod("export", home.first, "moved.jsonl")
    [moved] = home.polypod("import", "moved.jsonl", "--store", "jsonl:other", "--json").lines
    check("import", moved)
    home.write(
        "ask.toml",
        '[tools]\nbuiltin = ["files"]\n[[scope.allow]]\ntarget = "."\npermission = "write"\n'
        '[[approval]]\ntool = "write_file"\npolicy = "ask"\n[approvals]\nheadless = "wait"\n',
    )
    with (
        model_server(call("write_file", {"path": "a", "content": "x"}), say("done")) as model,
        home.start("run", "go", "--manifest", "ask.toml", *model.options, text=True) as run,
    ):
        assert run.stderr is not None
        while "to allow it" not in run.stderr.readline():
            pass
        [waiting] = home.polypod("approvals", "--json").lines
        check("approvals", waiting)
        home.polypod("deny", waiting["approval_id"])
        run.communicate(timeout=60)


def test_a_result_with_an_output_is_one_and_nonsense_is_none(home: Home):
    with model_server(say('{"name": "Ada"}')) as model:
        result = home.polypod("run", "who?", "--schema", "name", "--json", *model.options).lines[-1]
    check("run", result)
    assert (result["type"], result["output"]) == ("RunResult", {"name": "Ada"})
    with pytest.raises(jsonschema.ValidationError):
        check("run", {**result, "outcome": "odd"})
    with pytest.raises(jsonschema.ValidationError):
        check("ps", {"session_id": "x"})


def printing(group: click.Group = polypod, before: str = "") -> Iterator[str]:
    """The commands that print JSON."""
    for name, command in each_command(group, click.Context(group)):
        if isinstance(command, click.Group):
            yield from printing(command, f"{before}{name} ")
        if any(parameter.name == "as_json" for parameter in command.params):
            yield f"{before}{name}"


def test_no_command_that_prints_json_is_left_out():
    """One of a group may stand under the group's name."""
    described = output_kinds().keys()
    assert not [each for each in printing() if not {each, each.split()[0]} & described]


def test_the_schema_has_each_command_and_all_that_the_protocol_has(home: Home):
    printed = json.loads(home.polypod("schema").out)
    assert printed == SCHEMA
    assert printed["properties"]["output"]["properties"].keys() == output_kinds().keys()
    jsonschema.Draft202012Validator.check_schema(printed)
