"""``--mcp FILE``: the servers of other clients' files, at a terminal."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from command_kit import Home
from mcp_kit import SERVERS, calls, having, raw
from person import ENTER, person

from actors.cli.approvals.form import Unreadable, fields_of, read_value
from actors.cli.doctor import doctor
from actors.cli.mcp_servers import with_servers
from actors.llm.scripted import ScriptedClient
from actors.system import PodSystem
from protocol.events import ApprovalRequested
from protocol.manifest import PodManifest


def file_of(tmp_path: Path, servers: Any) -> Path:
    file = tmp_path / "mcp.json"
    file.write_text(json.dumps({"mcpServers": servers}))
    return file


def test_what_clients_call_in_many_ways_is_read(tmp_path: Path) -> None:
    file = file_of(
        tmp_path,
        {
            "git": {
                "command": "uvx",
                "args": ["mcp-server-git"],
                "env": {"DEPTH": 3, "KEY": "${KEY}"},
                "alwaysAllow": [],
            },
            "My Web.1": {
                "type": "http",
                "url": "https://x/mcp",
                "headers": {"Authorization": "Bearer ${env:T}"},
            },
            "gem": {"httpUrl": "https://y/mcp", "excludeTools": ["rm"], "includeTools": ["a", "b"]},
            "off": {"command": "x", "disabled": True},
        },
    )
    manifest, notes = with_servers(PodManifest.of(mcp=[{"name": "git", "command": ["old"]}]), (file,))
    git, web, gem = manifest.tools.mcp
    assert (git.words, git.env) == (("uvx", "mcp-server-git"), {"DEPTH": "3", "KEY": "${KEY}"})
    assert (web.name, web.headers_env) == ("My-Web-1", {"Authorization": "Bearer ${env:T}"})
    assert (gem.url, gem.deny, gem.allow) == ("https://y/mcp", ("rm",), ("a", "b"))
    assert any("ignored alwaysAllow" in note for note in notes)
    assert any("'off' is disabled" in note for note in notes)
    assert notes[-1] == "MCP servers, not confined: git, My-Web-1, gem"


@pytest.mark.parametrize(
    ("servers", "words"),
    [
        ([], "expected {"),
        ({"a": 5}, "mcpServers.a: expected a table"),
        ({"a": {"command": ["x"]}}, "mcpServers.a.command: expected a string"),
        ({"a": {"command": "x", "args": "y"}}, "mcpServers.a.args: expected a list of strings"),
        (
            {"a": {"url": "http://x", "headers": {"A": "s3cret"}}},
            "mcpServers.a.headers.A: sessions never store",
        ),
        ({"a": {"type": "sse", "url": "http://x"}}, "the older SSE transport"),
        ({"a b": {"command": "x"}, "a-b": {"command": "x"}}, "would both be 'a-b'"),
        ({"a": {}}, "expected either a command or a url"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, servers: Any, words: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        with_servers(PodManifest.of(), (file_of(tmp_path, servers),))
    assert words in caught.value.message
    assert "s3cret" not in caught.value.message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match=r"--mcp .*gone.json: cannot be read"):
        with_servers(PodManifest.of(), (tmp_path / "gone.json",))
    (tmp_path / "half.json").write_text("{")
    with pytest.raises(click.UsageError, match="invalid JSON"):
        with_servers(PodManifest.of(), (tmp_path / "half.json",))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_a_run_uses_a_server_and_its_session_remembers_it(home: Home, tmp_path: Path) -> None:
    command, *arguments = raw()["command"]
    file = file_of(tmp_path, {"raw": {"command": command, "args": arguments}})
    done = home.polypod("run", 'use raw__echo {"text": "forty"}', "--model", "offline", "--mcp", str(file))
    assert done.code == 0, done.err
    assert "forty" in done.out
    assert "MCP servers, not confined: raw" in done.err
    again = home.polypod("resume", home.session(), 'use raw__echo {"text": "three"}')
    assert "three" in again.out
    without = home.polypod("resume", home.session(), 'use raw__echo {"text": "four"}', "--no-tools")
    assert "raw__echo" not in without.err


def test_a_person_at_a_terminal_fills_in_a_form(home: Home, tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", str(SERVERS / "raw_server.py")]
    home.write(
        "clerk.toml",
        f'[pod]\nname = "clerk"\n[model]\nscheme = "offline"\n'
        f'[[tools.mcp]]\nname = "raw"\napproval = "allow"\ncommand = {json.dumps(command)}\n',
    )
    with person(home, "run", "use raw__ask", "--manifest", "clerk.toml") as somebody:
        somebody.sees("MCP server 'raw' asks: which town?")
        somebody.sees("answer it? (y/n)")
        somebody.press(f"y{ENTER}")
        somebody.sees("town (string): ")
        somebody.press(f"Oslo{ENTER}")
        somebody.sees("Oslo")
        assert somebody.leaves_with() == 0


def test_values_of_a_form_are_read_as_their_types() -> None:
    form = {
        "properties": {
            "n": {"type": "integer"},
            "b": {"type": "boolean"},
            "l": {"type": "array"},
            "c": {"enum": ["x"]},
        }
    }
    fields = {each.name: each for each in fields_of({**form, "required": ["n"]})}
    assert fields["n"].prompt == "n (integer): "
    assert fields["b"].prompt == "b (yes or no, optional): "
    said = {
        name: read_value(text, fields[name])
        for name, text in {"n": "5", "b": "Yes", "l": "a, b", "c": "x"}.items()
    }
    assert said == {"n": 5, "b": True, "l": ["a", "b"], "c": "x"}
    assert read_value("", fields["c"]) is None
    for name, text in {"n": "x", "b": "maybe", "c": "y"}.items():
        with pytest.raises(Unreadable):
            read_value(text, fields[name])
    with pytest.raises(Unreadable, match="this field is required"):
        read_value(" ", fields["n"])


HEROES = [{"const": "h-1", "title": "Superman"}, {"const": "h-2", "title": "Wonder Woman"}]


def test_a_field_of_a_form_says_what_may_be_chosen_within_what_bounds_and_what_enter_means() -> None:
    form = {
        "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 100, "default": 42},
            "hero": {"type": "string", "oneOf": HEROES, "default": "h-2"},
            "heroes": {"type": "array", "items": {"anyOf": HEROES}, "maxItems": 1},
            "pet": {"type": "string", "enum": ["p-1"], "enumNames": ["Cat"]},
            "born": {"type": "string", "format": "date"},
            "odd": {"type": "string", "enum": ["a"], "default": "b"},
        },
        "required": ["hero"],
    }
    fields = fields_of(form)
    assert [each.prompt for each in fields] == [
        "size (integer, from 1 to 100, Enter for 42, - for none): ",
        "hero (Superman | Wonder Woman, Enter for Wonder Woman): ",
        "heroes (Superman | Wonder Woman, a comma-separated list, of at most 1 values, optional): ",
        "pet (Cat, optional): ",
        "born (date, optional): ",
        "odd (a, optional): ",
    ]
    assert [read_value("", each) for each in fields] == [42, "h-2", None, None, None, None]
    said = ["7", "superman", "h-1", "Cat", "2031-01-31", "a"]
    assert [read_value(text, each) for text, each in zip(said, fields, strict=True)] == [
        *(7, "h-1", ["h-1"], "p-1", "2031-01-31", "a"),
    ]
    assert read_value("-", fields[0]) is None
    wrong = {
        "101": "a whole number from 1 to 100",
        "Batman": r"one of h-1 \(Superman\), h-2 \(Wonder Woman\)",
    }
    wrong |= {"h-1, h-2": "a list of at most 1 values", "dog": "one of p-1", "1990-13-45": "a date like"}
    for (text, expected), each in zip(wrong.items(), fields[:5], strict=True):
        with pytest.raises(Unreadable, match=expected):
            read_value(text, each)


async def test_a_servers_question_is_answered_from_another_process(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))  # where the command looks for the proof
    store = f"sqlite:{tmp_path}/pods.db"
    async with PodSystem(store) as system:
        manifest = having(raw(timeout=20), approvals={"headless": "wait"})
        pod = await system.spawn(manifest, client=ScriptedClient(calls("raw__ask")))
        with pod.subscribe([ApprovalRequested]) as questions:
            run = pod.run("go")
            question = await anext(questions)
        assert isinstance(question, ApprovalRequested)
        words = ("approve", question.approval_id, "--store", store, "--arguments", '{"town": "Oslo"}')
        done = await asyncio.to_thread(home.polypod, *words)
        assert done.code == 0, done.err
        await run
        assert "Oslo" in (await pod.history())[2].text


def test_doctor_lists_the_servers_of_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(
        '[[tools.mcp]]\nname = "a"\ncommand = "sh -c true"\napproval = "allow"\n'
        '[[tools.mcp]]\nname = "b"\ncommand = "no-such-program"\n'
        '[[tools.mcp]]\nname = "c"\nurl = "https://x/mcp"\nheaders_env = { A = "NO_SUCH_VARIABLE" }\n'
    )
    done = CliRunner().invoke(
        doctor, ["--json", "--store", "memory:", "--manifest", str(tmp_path / "m.toml")]
    )
    checks = {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert checks["MCP server a"]["status"] == "ok"
    assert "sh -c true; not confined" in checks["MCP server a"]["text"]
    assert checks["MCP server b"]["status"] == "failed"
    assert "NO_SUCH_VARIABLE is not set" in checks["MCP server c"]["text"]
    assert getattr(done.exception, "code", done.exit_code) == 1
