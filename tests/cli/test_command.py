"""The command in its users' hands: what it prints where, how it ends, and what bad input comes to."""

import asyncio
import fcntl
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import termios
from contextlib import closing
from pathlib import Path

import pytest
from command_kit import COMMAND, Done, Home, silent_server
from ports import unused_port
from store_kit import change_entry

from actors.llm.scripted import ScriptedClient
from actors.sessions.chain import chained
from actors.sessions.sqlite.store import SQLiteStore
from actors.system import PodSystem
from protocol.agents import AgentSpec, opening_of
from protocol.entries import SessionOpened
from protocol.events import RunEnd, RunStart, ToolResulted
from protocol.manifest import PodManifest
from protocol.wire import decode_event, encode


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def check_refusal(done: Done, code: int, *words: str) -> None:
    """It ended with ``code``, nothing on standard output, and one clear line that says ``words``."""
    assert (done.code, done.out) == (code, ""), done
    reported = [line for line in done.err.splitlines() if line.startswith("polypod: ")]
    assert len(reported) == 1, done.err
    assert "Traceback" not in done.err
    assert not [word for word in words if word not in done.err], done.err


# -- what goes well ----------------------------------------------------------------------------------


def test_a_run_prints_its_answer_and_says_the_rest_on_standard_error(home: Home):
    home.write("a.txt", "one two three\n")
    done = home.run("count words in a.txt")
    assert done.code == 0
    assert "a.txt has 3 words" in done.out
    assert "✓ count_words(path='a.txt')" in done.err
    assert f"may read and write {home.folder}" in done.err
    assert done.err.splitlines()[-1].startswith("finished · 2 requests · ")


def test_a_run_for_a_program_prints_events_and_last_the_result(home: Home):
    home.write("a.txt", "one two three\n")
    done = home.run("count words in a.txt", "--json")
    *reported, last = done.out.splitlines()
    kinds = [type(decode_event(line.encode())) for line in reported]
    assert (kinds.count(RunStart), kinds.count(ToolResulted), kinds.count(RunEnd)) == (1, 1, 1)
    result = json.loads(last)
    assert (result["type"], result["outcome"]) == ("RunResult", "finished")
    assert "3 words" in result["text"]
    assert done.err == ""


def test_a_task_can_come_from_standard_input(home: Home):
    home.write("a.txt", "one two\n")
    assert "2 words" in home.polypod("run", "-", "--model", "offline", words="count words in a.txt").out
    assert "2 words" in home.polypod("run", "-", "--model", "offline", words="\ufeffcount words in a.txt").out
    assert home.polypod("run", "-", "--model", "offline", words="\ufeff\n").code == 2


def test_without_a_model_or_a_server_the_embedded_one_answers_and_is_named(home: Home):
    done = home.polypod("run", "list files", "--store", "memory:")
    assert "model: " in done.err.splitlines()[0]
    assert done.code == 0


def test_the_default_store_is_a_file_in_the_state_folder_for_its_owner_alone(home: Home):
    home.run("list files")
    assert (home.state / "polypod" / "pods.db").is_file()
    assert (home.state / "polypod").stat().st_mode & 0o777 == 0o700


def test_sessions_are_listed_shown_and_logged(home: Home):
    home.write("a.txt", "one two three\n")
    home.run("count words in a.txt", "--name", "counter")
    listed = home.polypod("ps")
    session = home.session()
    assert session in listed.out
    assert "counter" in listed.out
    assert "finished" in listed.out
    shown = home.polypod("show", session[:-4])
    assert "a.txt has 3 words" in shown.out
    assert "offline" in shown.out
    logged = home.polypod("log", session).out
    assert "session opened for pod counter" in logged
    assert "count words in a.txt" in logged
    tree = home.polypod("log", session, "--tree").out
    assert f"▸ {session}" in tree


async def test_what_nothing_confines_is_named_where_it_is_at_work(home: Home):
    url = f"sqlite:{home.folder / 'pods.db'}"
    servers = [{"name": "fs", "command": ["no-such-server"]}]
    async with PodSystem(store=url) as system:
        await system.spawn(PodManifest.of(name="clerk", mcp=servers), client=ScriptedClient([]))
        await system.spawn(PodManifest.of(name="lister"), client=ScriptedClient([]))
        done = await asyncio.to_thread(home.polypod, "ps", "--store", url)
        assert done.err.splitlines()[-1].endswith("(MCP servers, programs of other agents): fs (clerk)")
    assert "confines" not in home.polypod("ps", "--store", url).err
    spec = AgentSpec(id="fix-1", task="fix", runner="claude", cwd="/", root="/", created_at=1.0)
    opened = SessionOpened(session_id="s", seq=1, at=1.0, pod="fix-1", manifest=opening_of(spec))
    with closing(SQLiteStore(home.folder / "pods.db")) as store:
        store.create("s", "fix-1", None, chained([encode(opened)]), claim=False)
    rows = home.polypod("ps", "--json", "--store", url).lines
    found = {row["pod"]: row["unconfined"] for row in rows}
    assert found == {"clerk": ["fs"], "lister": [], "fix-1": ["claude"]}


def test_what_is_listed_shown_and_logged_is_there_as_data_too(home: Home):
    home.run("list files", "--name", "lister")
    [row] = home.polypod("ps", "--json").lines
    assert (row["pod"], row["last_run"], row["holder"]) == ("lister", "finished", None)
    [shown] = home.polypod("show", row["session_id"], "--json").lines
    assert shown["manifest"]["pod"]["name"] == "lister"
    assert shown["usage"]["input_tokens"] > 0
    assert shown["seconds"] > 0
    entries = home.polypod("log", row["session_id"], "--json").lines
    assert [entry["seq"] for entry in entries] == list(range(1, row["seq"] + 1))
    assert entries[-1]["hash"] == row["head"]
    [branch] = home.polypod("log", row["session_id"], "--tree", "--json").lines
    assert branch["depth"] == 0


def test_a_session_goes_on_with_new_words(home: Home):
    home.write("a.txt", "one two\n")
    home.run("remember that the boat is red")
    session = home.session()
    done = home.polypod("resume", session, "count words in a.txt")
    assert "2 words" in done.out
    assert home.session() == session
    users = [line for line in home.polypod("log", session).out.splitlines() if "the boat is red" in line]
    assert users


def test_events_of_all_processes_are_printed_from_the_store(home: Home):
    home.run("list files", "--name", "one")
    home.run("list files", "--name", "two")
    pods = [event["pod"] for event in home.polypod("events", "--json").lines]
    assert set(pods) == {"one", "two"}
    only = home.polypod("events", "--pod", "two", "--since", "3", "--json").lines
    assert {event["pod"] for event in only} == {"two"}
    assert all(event["seq"] > 3 for event in only)
    assert "RunEnd" in home.polypod("events").out


def test_a_damaged_session_is_named_and_hides_no_events_of_others(home: Home):
    for _ in range(2):
        home.run("hello")
    change_entry(home.state / "polypod" / "pods.db", 4, b'"hello"', b'"hello')
    damaged, sound = sorted(each["session_id"] for each in home.polypod("ps", "--json").lines)
    done = home.polypod("events", "--json")
    assert done.code == 1
    assert f"session {damaged} cannot be read on" in done.err
    kinds = {
        name: [each["type"] for each in done.lines if each["session_id"] == name] for name in (damaged, sound)
    }
    assert kinds[damaged] == kinds[sound][: len(kinds[damaged])]
    assert kinds[sound][-1] == "PodStopped"


def test_followed_events_of_another_process_come_as_they_happen(home: Home):
    with home.start("events", "--follow", "--json") as follower:
        home.run("list files", "--name", "later")
        assert follower.stdout is not None
        for line in follower.stdout:
            if json.loads(line)["type"] == "PodStopped":
                break
        follower.send_signal(signal.SIGINT)
        assert follower.wait(60) == 0


def test_the_schema_is_json_and_names_the_events(home: Home):
    schema = json.loads(home.polypod("schema").out)
    assert "RunEnd" in schema["$defs"]


@pytest.mark.parametrize(
    "command", ["run", "chat", "resume", "ps", "show", "log", "events", "schema", "demo"]
)
def test_every_command_is_listed_and_explains_itself(home: Home, command: str):
    listed = home.polypod("--help").out
    assert f"  {command} " in listed
    assert home.polypod(command, "--help").code == 0


def test_without_a_command_help_is_printed(home: Home):
    assert home.polypod().out == home.polypod("--help").out


def test_a_manifest_says_what_the_pod_is(home: Home):
    home.write("notes.txt", "one two\n")
    manifest = home.write(
        "pod.toml",
        '[pod]\nname = "reader"\n[model]\nscheme = "offline"\n[tools]\nbuiltin = ["files"]\n'
        '[[scope.allow]]\ntarget = "."\n',
    )
    done = home.polypod("run", "count words in notes.txt", "--manifest", str(manifest))
    assert "2 words" in done.out
    assert "reader" in home.polypod("ps").out


def test_chat_takes_its_turns_from_a_pipe(home: Home):
    home.write("a.txt", "one two\n")
    done = home.polypod(
        "chat", "--model", "offline", words="count words in a.txt\n\nlist files\n/exit\nlist files\n"
    )
    assert done.code == 0
    assert "2 words" in done.out
    assert len(home.polypod("ps", "--json").lines) == 1
    assert done.err.count("finished · ") == 2


def test_chat_takes_its_turns_from_a_file_and_ends_with_it(home: Home):
    home.write("a.txt", "one two\n")
    with (
        home.write("turns.txt", "count words in a.txt").open() as turns,
        home.start("chat", "--model", "offline", stdin=turns) as chat,
    ):
        out, _ = chat.communicate(timeout=60)
    assert "2 words" in out
    assert chat.returncode == 0


def test_ctrl_c_ends_a_chat_that_waits_for_a_pipe(home: Home):
    with home.start("chat", "--model", "offline", stdin=subprocess.PIPE) as chat:
        assert chat.stderr is not None
        while "/help shows more" not in chat.stderr.readline():
            pass
        chat.send_signal(signal.SIGINT)
        assert chat.wait(60) == 130


# -- how it ends -------------------------------------------------------------------------------------


def test_a_step_limit_ends_with_its_own_code_and_says_so(home: Home):
    manifest = home.write(
        "pod.toml", '[worker]\nmax_steps = 1\n[tools]\nbuiltin = ["files"]\n[[scope.allow]]\ntarget = "."\n'
    )
    done = home.run("list files", "--manifest", str(manifest))
    assert done.code == 3
    assert "limit reached" in done.err


def test_a_token_budget_ends_with_the_same_code(home: Home):
    manifest = home.write("pod.toml", "[budget]\ntokens = 1\n")
    done = home.run("list files", "--manifest", str(manifest))
    assert done.code == 3, done


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_asked_to_end_is_paused_and_the_way_on_is_printed(home: Home, number: int, code: int):
    with (
        silent_server() as (url, came),
        home.start("run", "list files", "--model", "openai/m", "--base-url", url, "--json") as run,
    ):
        assert came.wait(60)
        run.send_signal(number)
        out, err = run.communicate(timeout=60)
    assert run.returncode == code
    assert json.loads(out.splitlines()[-1])["outcome"] == "paused"
    assert home.polypod("ps", "--json").lines[0]["last_run"] == "paused"
    _, _, command = err.splitlines()[-1].partition("continue with: polypod ")
    done = home.polypod(*shlex.split(command), "--model", "offline")
    assert done.code == 0, done
    assert home.polypod("ps", "--json").lines[0]["last_run"] == "finished"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_kills_and_the_session_can_be_resumed_all_the_same(home: Home, number: int):
    home.write(
        "deaf.py",
        "import asyncio, sys\nfrom polypod import tool\n\n@tool\nasync def deaf(word: str) -> str:\n"
        "    print('at work', file=sys.stderr, flush=True)\n    while True:\n        try:\n"
        "            await asyncio.Event().wait()\n        except asyncio.CancelledError:\n"
        "            print('no', file=sys.stderr, flush=True)\n",
    )
    with home.start("run", "use deaf x", "--model", "offline", "--tools", "deaf.py") as run:
        assert run.stderr is not None
        while "at work" not in (line := run.stderr.readline()):
            assert line
        run.send_signal(number)
        while "no" not in run.stderr.readline():
            pass
        run.send_signal(number)
        _, err = run.communicate(timeout=60)
    assert run.returncode == 128 + number
    assert f"continue with: polypod resume {home.session()[-12:]}" in err
    assert home.polypod("ps", "--json").lines[0]["last_run"] == "open"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("command", ["run hi", "chat", "compact S", "bench"])
def test_a_signal_that_comes_again_and_again_does_not_change_how_a_command_ends(
    home: Home, command: str, number: int, code: int
):
    home.run("hello")
    words = [home.session() if word == "S" else word for word in command.split()]
    with (
        silent_server() as (url, came),
        home.start(*words, "--model", "openai/m", "--base-url", url, stdin=subprocess.PIPE) as process,
    ):
        assert process.stderr is not None
        if command == "chat":
            while "/help shows more" not in process.stderr.readline():
                pass
        else:
            assert came.wait(60)
        while process.poll() is None:
            process.send_signal(number)
            select.select([], [], [], 0.02)
        err = process.stderr.read()
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    assert err.count("continue with: polypod ") == (command == "run hi"), err
    assert err.count("nothing was said, so no session is kept") == (command == "chat"), err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_chat_that_is_asked_to_end_says_how_to_go_on(home: Home, number: int, code: int):
    home.run("hello")
    options = ("--model", "offline")
    with home.start("chat", "--resume", home.session(), *options, stdin=subprocess.PIPE) as chat:
        assert chat.stderr is not None
        while "/help shows more" not in chat.stderr.readline():
            pass
        chat.send_signal(number)
        _, err = chat.communicate(timeout=60)
        assert chat.returncode == code
    _, _, command = err.splitlines()[-1].partition("continue with: polypod ")
    assert home.polypod(*shlex.split(command), *options, words="list files\n").code == 0


def test_a_chat_that_is_asked_to_end_as_a_turn_ends_ends(home: Home):
    with home.start("chat", "--model", "offline", stdin=subprocess.PIPE) as chat:
        assert chat.stdin is not None
        assert chat.stdout is not None
        chat.stdin.write("hello\n")
        chat.stdin.flush()
        assert chat.stdout.readline()
        chat.send_signal(signal.SIGTERM)
        assert chat.wait(60) == 143
        assert "continue with: polypod chat --resume" in chat.communicate()[1]


def test_a_chat_that_is_asked_to_end_in_the_middle_of_a_turn_pauses_it(home: Home):
    with (
        silent_server() as (url, came),
        home.start("chat", "--model", "openai/m", "--base-url", url, stdin=subprocess.PIPE) as chat,
    ):
        assert chat.stdin is not None
        chat.stdin.write("list files\n")
        chat.stdin.flush()
        assert came.wait(60)
        chat.send_signal(signal.SIGTERM)
        _, err = chat.communicate(timeout=60)
        assert chat.returncode == 143
    assert "continue with: polypod chat --resume " in err
    assert home.polypod("ps", "--json").lines[0]["last_run"] == "paused"
    done = home.polypod("chat", "--resume", home.session(), "--model", "offline", words="/resume\n")
    assert done.code == 0, done
    assert home.polypod("ps", "--json").lines[0]["last_run"] == "finished"


def test_a_killed_run_is_reported_as_interrupted_and_goes_on_where_it_stood(home: Home):
    with (
        silent_server() as (url, came),
        home.start("run", "list files", "--model", "openai/m", "--base-url", url) as run,
    ):
        assert came.wait(60)
        run.kill()
    assert home.polypod("ps", "--json").lines[0]["last_run"] == "open"
    assert "interrupted" in home.polypod("ps").out
    done = home.polypod("resume", home.session(), "--model", "offline")
    assert done.code == 0, done
    assert home.polypod("ps", "--json").lines[0]["last_run"] == "finished"


def test_a_reader_that_goes_away_is_no_error(home: Home):
    home.run("list files")
    with home.start("schema") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        reported = process.stderr.read()
    assert reported == ""
    assert process.returncode in {0, 141}


def test_a_terminal_without_unicode_is_no_error(home: Home):
    home.env |= {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0"}
    home.write("a.txt", "one two\n")
    done = home.run("read a.txt")
    assert done.code == 0, done
    assert "+ read_file(path='a.txt') -> " in done.err


# -- bad input ---------------------------------------------------------------------------------------


def test_an_unknown_key_of_a_manifest_names_file_and_key(home: Home):
    home.write("pod.toml", '[modle]\nscheme = "offline"\n')
    done = home.polypod("run", "hi", "--manifest", "pod.toml")
    check_refusal(done, 2, "pod.toml: unknown key 'modle'", "did you mean 'model'?")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[model]\nscheme = "ollma"\n', "model.scheme: unknown scheme 'ollma'"),
        ('[tools]\nbuiltin = ["file"]\n', "tools.builtin: there is no built-in tool 'file'"),
    ],
)
@pytest.mark.parametrize("command", [["run", "hi"], ["chat"], ["bench", "--turns", "1"]])
def test_what_is_wrong_with_a_manifest_only_when_a_pod_is_made_names_the_file_too(
    home: Home, text: str, why: str, command: list[str]
):
    home.write("pod.toml", text)
    check_refusal(home.polypod(*command, "--manifest", "pod.toml"), 2, f"pod.toml: {why}")


def test_a_manifest_that_is_not_there_is_named(home: Home):
    check_refusal(home.polypod("run", "hi", "--manifest", "none.toml"), 2, "none.toml", "No such file")


def test_an_unknown_model_server_names_the_kinds_there_are(home: Home):
    check_refusal(
        home.polypod("run", "hi", "--model", "nonsense/x"),
        2,
        "--model: unknown scheme",
        "'nonsense'",
        "ollama",
    )


def test_a_key_variable_that_is_not_set_is_named(home: Home):
    home.write("pod.toml", '[model]\nscheme = "openai"\nmodel_id = "m"\napi_key_env = "NO_SUCH_KEY"\n')
    check_refusal(home.polypod("run", "hi", "--manifest", "pod.toml"), 2, "NO_SUCH_KEY", "export")


def test_a_dead_server_is_named_with_its_real_address(home: Home):
    port = unused_port()
    done = home.polypod("run", "hi", "--model", "openai/m", "--base-url", f"http://127.0.0.1:{port}/v1")
    assert done.code == 1
    assert f"127.0.0.1:{port}" in done.err
    assert "Traceback" not in done.err


def test_a_path_outside_of_the_scope_is_refused_and_said_how_to_permit(home: Home):
    letter = home.folder.parent / "letter.txt"
    letter.write_text("x\n")
    done = home.run("read ../letter.txt")
    assert done.code == 1
    assert "polypod: not allowed to read" in done.err
    assert "--allow DIR" in done.err
    assert "may read and write" in done.err
    allowed = home.run("read ../letter.txt", "--allow", str(home.folder.parent))
    assert allowed.code == 0, allowed


@pytest.mark.parametrize(
    "command", [["run", "hi", "--model", "offline"], ["ps"], ["events"], ["show", "abc"]]
)
def test_a_file_that_is_no_database_is_named_and_left_as_it_is(home: Home, command: list[str]):
    garbage = home.write("garbage.db", "this is not a database at all, but somebody's letter\n" * 40)
    before = garbage.read_bytes()
    done = home.polypod(*command, "--store", "sqlite:garbage.db")
    check_refusal(done, 1, "garbage.db")
    assert garbage.read_bytes() == before
    assert [path.name for path in home.folder.iterdir()] == ["garbage.db"]


def test_a_session_that_is_not_there_is_named_and_no_store_is_made(home: Home):
    for command in (["show", "abc"], ["log", "abc"], ["resume", "abc", "hi"]):
        check_refusal(home.polypod(*command, "--store", "sqlite:pods.db"), 2, "abc", "sqlite:pods.db")
    assert not list(home.folder.iterdir())


@pytest.mark.parametrize("command", [["fsck"], ["gc", "--superseded"]])
def test_a_store_that_is_not_there_is_not_called_sound_and_not_made(home: Home, command: list[str]):
    check_refusal(
        home.polypod(*command, "--store", "sqlite:pods.db"), 2, "there is no store at sqlite:pods.db"
    )
    assert not list(home.folder.iterdir())


def test_a_session_that_goes_on_takes_no_other_manifest(home: Home):
    home.run("hello")
    check_refusal(
        home.polypod("chat", "--resume", home.session(), "--name", "x"), 2, "--name is only for new sessions"
    )
    check_refusal(home.polypod("chat", "--no-tools"), 2, "--no-tools is only for continuing a session")


def test_a_session_that_goes_on_may_be_allowed_more(home: Home):
    (home.folder.parent / "other").mkdir()
    (home.folder.parent / "other" / "note.txt").write_text("so it is\n")
    home.run("hello")
    session = home.session()
    assert home.polypod("resume", session, "read ../other/note.txt").code == 1
    done = home.polypod("resume", session, "read ../other/note.txt", "--allow", "../other")
    assert done.code == 0, done
    assert "so it is" in done.out


def test_a_session_keeps_its_model_whatever_is_exported_for_new_pods(home: Home):
    home.run("hello")
    home.env["POLYPOD_MODEL"] = "nonsense/x"
    assert home.polypod("resume", home.session(), "hello").code == 0
    assert home.polypod("chat", "--resume", home.session(), words="hello\n").code == 0
    check_refusal(home.polypod("run", "hi"), 2, "'nonsense'")


def test_a_beginning_that_more_sessions_share_lists_them(home: Home):
    home.run("list files")
    home.run("hello there")
    check_refusal(
        home.polypod("show", home.session()[:2]), 2, "2 sessions match", "pod: list files", "pod: hello there"
    )


def test_last_is_the_session_that_changed_last(home: Home):
    check_refusal(home.polypod("resume", "last", "hello"), 2, "no session 'last'")
    home.run("list files")
    first = home.session()
    home.run("hello")
    assert home.session() != first
    assert home.polypod("show", "last", "--json").lines[0]["session_id"] == home.session()
    assert home.polypod("resume", first, "hello").code == 0
    assert home.polypod("resume", "last", "hello").code == 0
    assert home.session() == first


def test_a_finished_session_is_not_resumed_without_words(home: Home):
    home.run("list files")
    check_refusal(home.polypod("resume", home.session()), 2, " ended: ", "say what to do next")


def test_a_session_that_another_process_holds_is_refused_and_the_holder_named(home: Home):
    with (
        silent_server() as (url, came),
        home.start("run", "hi", "--model", "openai/m", "--base-url", url) as run,
    ):
        assert came.wait(60)
        row = home.polypod("ps", "--json").lines[0]
        assert row["holder"]["pid"] == run.pid
        done = home.polypod("resume", row["session_id"], "--model", "offline")
        run.kill()
    check_refusal(done, 1, "in use", f"process {run.pid}")


def test_a_store_of_no_known_kind_says_which_there_are(home: Home):
    check_refusal(home.polypod("ps", "--store", "tape:reel"), 2, "tape", "sqlite:FILE")
    check_refusal(home.polypod("bench", "--store", "sqlite:x?durability=some"), 2, "durability", "not 'some'")
    assert not list(home.folder.iterdir())


def test_a_wrong_option_says_where_help_is(home: Home):
    check_refusal(home.polypod("run", "hi", "--mdoel", "x"), 2, "No such option", "polypod run --help")


@pytest.mark.parametrize("json_too", [[], ["--json"]])
def test_a_pod_that_has_no_session_is_named_and_what_may_be_meant(home: Home, json_too: list[str]):
    home.run("hello", "--name", "reader@example.com")
    for command in ("ps", "events"):
        found = home.polypod(command, "--pod", "reader", *json_too)
        check_refusal(found, 2, "no pod 'reader'", "'reader@example.com'?")
    assert "reader@example.com" in home.polypod("ps", "--pod", "reader@example.com", *json_too).out


def test_a_server_without_http_before_it_is_refused_and_a_model_without_a_kind_is_guessed(home: Home):
    home.write("pod.toml", '[model]\nscheme = "openai"\nmodel_id = "m"\nbase_url = "127.0.0.1:9"\n')
    how = "write it like http://127.0.0.1:11434/v1"
    check_refusal(
        home.polypod("run", "hi", "--base-url", "127.0.0.1:9"), 2, "'127.0.0.1:9' is not a base URL", how
    )
    check_refusal(home.polypod("run", "hi", "--manifest", "pod.toml"), 2, "pod.toml: model.base_url", how)
    check_refusal(home.polypod("run", "hi", "--model", "gpt-4.1"), 2, "did you mean 'openai/gpt-4.1'?")
    check_refusal(home.polypod("run", "hi", "--model", "olama/qwen3"), 2, "did you mean 'ollama/qwen3'?")


def test_what_a_tool_starts_finds_nothing_on_standard_input_and_a_loop_keeps_its_list(home: Home):
    home.write(
        "eats.py",
        "import subprocess, sys\nfrom polypod import tool\n@tool\ndef eat() -> str:\n"
        "    eaten = subprocess.run(['cat'], capture_output=True, text=True).stdout + sys.stdin.read()\n"
        "    return f'eaten: {eaten!r}'\n",
    )
    loop = f'while read -r task; do {" ".join(COMMAND)} run "$task" --model offline --tools eats.py; done'
    with subprocess.Popen(
        ["bash", "-c", loop], cwd=home.folder, env=home.env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as shell:  # fmt: skip
        out, err = shell.communicate("use eat\nuse eat\n", timeout=60)
    assert out.count("eaten: ''") == 2, (out, err)
    chat = home.polypod("chat", "--model", "offline", "--tools", "eats.py", words="use eat\nuse eat\n")
    assert chat.out.count("eaten: ''") == 2, chat


@pytest.mark.parametrize(
    ("command", "last"),
    [
        (("schema",), "}"),
        (("agent", "--model", "offline", "--idle-timeout", "0.1", "x" * 99_999), '"type":"agent_stopped"'),
    ],
)
def test_a_pipe_that_does_not_block_gets_all_though_its_reader_is_slow(
    home: Home, command: tuple[str, ...], last: str
):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    process = home.start(*command, stdout=writing)
    os.close(writing)
    with process, open(reading, encoding="utf-8") as pipe:  # noqa: PTH123 - of a descriptor
        unread = b"\0" * 4
        while int.from_bytes(unread, sys.byteorder) < 60_000 and process.poll() is None:
            os.sched_yield()
            unread = fcntl.ioctl(reading, termios.FIONREAD, unread)
        printed = pipe.read()
    assert process.returncode == 0
    assert last in printed.splitlines()[-1]


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-", "<&-"])
def test_closed_standard_streams_are_no_error(home: Home, closed: str):
    command = " ".join(COMMAND)
    script = f"{command} run hello --model offline {closed}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=home.folder, env=home.env, capture_output=True, text=True, check=False
    )
    # An answer that had nowhere to go is not a success; what is said beside it may be lost.
    assert done.returncode == (1 if ">&-" in closed.replace("2>&-", "") else 0), done
    assert "defect" not in done.stderr
    assert bool(done.stdout) == (closed in {"2>&-", "<&-"})


@pytest.mark.parametrize("command", ["ps", "ps --json", "--help", "--version", "schema", "memory list"])
def test_what_cannot_be_written_to_a_closed_standard_output_is_reported(home: Home, command: str):
    home.run("hello")
    home.write("note.md", "---\ntitle: a\n---\na\n")
    (home.state / "polypod" / "memory" / "knowledge").mkdir(parents=True)
    (home.folder / "note.md").rename(home.state / "polypod" / "memory" / "knowledge" / "note.md")
    done = subprocess.run(
        ["bash", "-c", f"{' '.join(COMMAND)} {command} >&-"],
        cwd=home.folder, env=home.env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done
    assert done.stderr == "polypod: the output cannot be written: Bad file descriptor\n"


def test_an_answer_that_cannot_be_written_is_in_its_session_which_is_named(home: Home):
    with (
        Path("/dev/full").open("w") as full,
        home.start("run", "hello", "--model", "offline", stdout=full) as run,
    ):
        _, err = run.communicate(timeout=60)
    assert run.returncode == 1
    assert f"session {home.session()}" in err
    assert "the output cannot be written: No space left on device" in err


@pytest.mark.parametrize(
    ("name", "value", "command"),
    [
        ("POLYPOD_MODEL", "nonsense/x", ["run", "hi"]),
        ("POLYPOD_MODEL", "nonsense/x", ["chat"]),
        ("POLYPOD_MODEL", "nonsense/x", ["bench"]),
        ("POLYPOD_BASE_URL", "ftp:x", ["run", "hi"]),
        ("POLYPOD_STORE", "nonsense", ["ps"]),
    ],
)
def test_a_wrong_value_is_named_by_what_it_was_given_by(
    home: Home, name: str, value: str, command: list[str]
):
    option = "--" + name.removeprefix("POLYPOD_").lower().replace("_", "-")
    typed = home.polypod(*command, option, value)
    home.env[name] = value
    exported = home.polypod(*command)
    assert (typed.code, exported.code) == (2, 2)
    assert option in typed.err.splitlines()[-2]
    assert f"${name}" in exported.err
    assert option not in exported.err


def test_what_lies_among_sessions_and_is_none_is_reported_by_ps(home: Home):
    (home.folder / "store").mkdir()
    home.write("store/diary.jsonl", "dear diary\n")
    empty = home.polypod("ps", "--store", "jsonl:store")
    assert "diary" in empty.err
    assert "no sessions in" not in empty.err
    assert "polypod fsck --store jsonl:store" in empty.err
    assert "first line is not a session's header" in home.polypod("show", "dia", "--store", "jsonl:store").err
    home.run("hello", "--store", "jsonl:store")
    listed = home.polypod("ps", "--store", "jsonl:store", "--json")
    assert len(listed.lines) == 1
    assert "diary" in listed.err
    assert "diary" not in home.polypod("ps").err


def test_help_is_a_command_too(home: Home):
    assert home.polypod("help").out == home.polypod("--help").out
    assert home.polypod("help", "run").out == home.polypod("run", "--help").out
    assert home.polypod("help", "memory", "search").out == home.polypod("memory", "search", "--help").out
    wrong = home.polypod("help", "nope")
    assert (wrong.code, wrong.err) == (2, "polypod: No such command 'nope'\n  hint: see polypod --help\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["rn", "hi"], "No such command 'rn'; did you mean 'run'?"),
        (["help", "rn"], "No such command 'rn'; did you mean 'run'?"),
        (["count the words"], "No such command 'count the words'; to run a task: polypod run TASK"),
    ],
)
def test_who_mistypes_a_command_reads_which_may_be_meant(home: Home, words: list[str], says: str):
    wrong = home.polypod(*words)
    assert (wrong.code, wrong.err.splitlines()[0]) == (2, f"polypod: {says}")


def test_a_task_from_a_standard_input_that_is_closed_is_empty(home: Home):
    done = subprocess.run(
        ["bash", "-c", f"{' '.join(COMMAND)} run - --model offline <&-"],
        cwd=home.folder, env=home.env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "the task is empty" in done.stderr


def test_an_empty_task_is_refused(home: Home):
    check_refusal(home.polypod("run", " "), 2, "the task is empty")


def test_a_failure_before_the_run_is_reported_to_a_program_as_a_result(home: Home):
    home.write("pod.toml", '[model]\nscheme = "openai"\nmodel_id = "m"\napi_key_env = "NO_SUCH_KEY"\n')
    done = home.polypod("run", "hi", "--manifest", "pod.toml", "--json")
    [result] = done.lines
    assert done.code == 2
    assert (result["type"], result["outcome"], result["error"]["kind"]) == (
        "RunResult",
        "failed",
        "MissingKey",
    )


def test_a_read_only_state_folder_is_one_line(home: Home):
    home.state.write_text("a file where a folder should be\n")
    done = home.polypod("ps")
    assert done.code == 1
    assert done.err.startswith("polypod: ")
    assert "Traceback" not in done.err


def test_a_state_folder_that_cannot_be_is_no_matter_to_who_names_a_store(home: Home):
    home.env["XDG_STATE_HOME"] = str(home.write("file", ""))
    check_refusal(home.run("hello"), 1, "cannot create the state folder", "--store or $POLYPOD_STORE")
    assert home.run("hello", "--store", "sqlite:pods.db").code == 0


def test_a_current_directory_that_is_gone_is_reported(home: Home):
    home.folder = home.folder / "gone"
    home.folder.mkdir()
    # In the child, after it has gone there and before the command begins.
    with home.start("run", "hello", "--model", "offline", preexec_fn=home.folder.rmdir) as process:
        _, err = process.communicate(timeout=60)
    check_refusal(Done(process.returncode, "", err), 2, "the current directory no longer exists")


def test_the_environment_names_model_and_store(home: Home):
    home.env |= {"POLYPOD_MODEL": "offline", "POLYPOD_STORE": "sqlite:mine.db"}
    done = home.polypod("run", "list files")
    assert done.code == 0
    assert "no model was named" not in done.err
    assert (home.folder / "mine.db").is_file()


def test_the_version_is_reported(home: Home):
    assert home.polypod("--version").out.startswith("polypod ")


def test_an_exported_model_that_stands_over_a_manifest_is_named(home: Home):
    (home.folder / "m.toml").write_text('[model]\nscheme = "openai"\nmodel_id = "m"\n')
    home.env["POLYPOD_MODEL"] = "offline"
    done = home.polypod("run", "hello", "--manifest", "m.toml")
    assert done.code == 0
    assert "model: offline, from $POLYPOD_MODEL, which overrides the manifest" in done.err
    assert "$POLYPOD_MODEL" not in home.polypod("run", "hello").err
