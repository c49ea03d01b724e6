"""``polypod agent``: the lines it prints, the messages it takes, and how it comes to its end."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from command_kit import Home, silent_server
from process_kit import wait_until_none

from actors.cli.agent.inbox import Inbox
from actors.runtime.children.launcher import Launcher
from protocol.errors import ChildNotListening

Line = dict[str, Any]
OFFLINE = ("--model", "offline")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


class Agent:
    """An agent at work, as who started it sees it."""

    def __init__(self, home: Home, *arguments: str, session: str | None = "s1", **options: Any) -> None:
        self.inbox = home.folder / "inbox"
        named = () if session is None else ("--session", session)
        self.process = home.start("agent", "--inbox", str(self.inbox), *named, *arguments, **options)
        self.lines: list[Line] = []

    def until(self, kind: str, **members: Any) -> Line:
        """The next line of that type, and with these members."""
        assert self.process.stdout is not None
        for text in self.process.stdout:
            line = json.loads(text)
            assert isinstance(line["time"], float)
            self.lines.append(line)
            if line["type"] == kind and members.items() <= line.items():
                return line
        raise AssertionError(
            f"no {kind}: {self.lines[-5:]} {self.process.stderr and self.process.stderr.read()}"
        )

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self.inbox))
        return connection

    def send(self, *messages: str) -> list[Line]:
        """Send messages, one a line: the answers to them."""
        with self.connect() as connection:
            connection.sendall("".join(f"{each}\n" for each in messages).encode())
            with connection.makefile() as answers:
                return [json.loads(answers.readline()) for _ in messages]

    def kinds(self) -> list[str]:
        return [line["type"] for line in self.lines]


@contextmanager
def agent(home: Home, *arguments: str, **options: Any) -> Iterator[Agent]:
    """An agent, which has ended afterwards, and left nothing."""
    made = Agent(home, *arguments, **options)
    try:
        yield made
        if made.process.poll() is None:
            made.process.send_signal(signal.SIGTERM)
        made.process.communicate(timeout=60)
    finally:
        made.process.kill()
        made.process.communicate()
    assert not made.inbox.exists()


def texts(lines: list[Line], kind: str) -> list[str]:
    return [line["content"][0]["text"] for line in lines if line["type"] == kind]


def test_it_does_its_task_and_what_comes_to_its_inbox(home: Home) -> None:
    with agent(home, *OFFLINE, "--cwd", str(home.folder), "--", "what do you remember?") as each:
        ready = each.until("agent_ready")
        assert (ready["cwd"], ready["model"], ready["session"]) == (str(home.folder), "offline", "s1")
        assert ready["version"]
        each.until("turn_end", step=1, outcome="finished", error=None)
        assert each.send("user count words in nothing.txt") == [{"line": 1, "type": "ok"}]
        each.until("turn_end", step=2)
        each.send("shutdown")
        stopped = each.until("agent_stopped")
        assert (stopped["reason"], stopped["code"], stopped["error"]) == ("shutdown", 0, None)
        assert each.process.wait() == 0
        kinds = each.kinds()
        assert kinds[0] == "agent_ready"
        assert kinds[-1] == "agent_stopped"
        assert kinds.index("turn_start") < kinds.index("user_message") < kinds.index("turn_end")
        assert {"tool_call", "tool_result", "assistant_message", "usage"} <= set(kinds)
        assert texts(each.lines, "user_message") == ["what do you remember?", "count words in nothing.txt"]


def test_it_listens_before_it_says_that_it_is_ready(home: Home) -> None:
    with agent(home, *OFFLINE) as each:
        each.until("agent_ready")
        assert each.send('{"type":"Describe"}')[0]["value"]["session_id"] == "s1"
        assert stat.S_IMODE(each.inbox.stat().st_mode) == 0o600


def test_a_task_that_starts_with_dashes_is_no_option(home: Home) -> None:
    with agent(home, *OFFLINE, "--", "--model is what?") as each:
        each.until("turn_end")
        assert texts(each.lines, "user_message") == ["--model is what?"]


def test_a_busy_agent_says_so_where_people_see_it(home: Home) -> None:
    with (
        silent_server() as (url, came),
        agent(home, "--model", "ollama/x", "--base-url", url, "--", "hello") as each,
    ):
        each.until("user_message")
        assert came.wait(60)
        (refused,) = each.send("user and another thing")
        line = each.until("error")
        for said in (refused, line):
            assert said["message"] == said["error"] == "agent busy; send 'cancel' first"
            assert said["kind"] == "AgentBusy"
        assert each.send("cancel") == [{"line": 1, "type": "ok"}]
        each.until("turn_end", step=1, outcome="cancelled")
        assert each.send("user again") == [{"line": 1, "type": "ok"}]
        each.until("turn_start", step=2)


def test_provider_and_model_name_what_answers(home: Home) -> None:
    with (
        silent_server() as (url, _),
        agent(home, "--provider", "ollama", "--model", "x", "--base-url", url) as each,
    ):
        assert each.until("agent_ready")["model"] == "ollama/x"


def test_newlines_in_a_text_make_one_message(home: Home) -> None:
    with agent(home, *OFFLINE) as each:
        each.until("agent_ready")
        each.send("user-json " + json.dumps("one\ntwo"))
        each.until("turn_end")
        assert texts(each.lines, "user_message") == ["one\ntwo"]


def test_a_second_shutdown_is_none_too_many(home: Home) -> None:
    with agent(home, *OFFLINE) as each:
        each.until("agent_ready")
        with each.connect() as connection:
            connection.sendall(b"shutdown\nshutdown\nshutdown\n")
            each.until("agent_stopped", reason="shutdown", code=0)
        assert each.process.wait() == 0


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"user",
        b"user-json {",
        b"{}",
        b'{"type":"Nothing"}',
        b'{"type":"Run","content":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b"user-json " + b"[" * 20_000 + b"]" * 20_000,
        b"\xff\xfe",
        b"x" * 100_000,
        b"cancel it",
    ],
)
def test_one_malformed_line_in_the_inbox_is_one_error(home: Home, line: bytes) -> None:
    with agent(home, *OFFLINE) as each:
        each.until("agent_ready")
        with each.connect() as connection:
            connection.sendall(line + b"\nuser hello\n")
            each.until("turn_end")
        assert each.kinds().count("error") == 1


#: Connects the socket that it is given to a path, and says on it what it is given besides.
CONNECT = """
import socket, sys
connection = socket.socket(fileno=0) if sys.argv[2] == "" else socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
if sys.argv[2]:
    connection.sendall(sys.argv[2].encode())
    print(connection.makefile().readline())
"""


async def test_only_a_person_answers_by_the_inbox(home: Home) -> None:
    answer = '{"type":"Approve","approval_id":"none"}'
    with agent(home, *OFFLINE) as each:
        each.until("agent_ready")
        [said] = each.send(answer)
        assert said["kind"] == "UnknownApproval"
        words = [sys.executable, "-c", CONNECT, str(each.inbox)]
        launcher = Launcher()
        child = await launcher.start([*words, answer + "\n"], cwd=home.folder, env=home.env)
        assert b"only a person may answer" in await child.stdout.read(65536)
        await child.wait()
        await launcher.aclose()
        with socket.socket(socket.AF_UNIX) as connection:  # of a process that is gone
            gone = await asyncio.create_subprocess_exec(*words, "", stdin=connection)
            assert await gone.wait() == 0
            connection.sendall(answer.encode() + b"\n")
            assert "is gone" in json.loads(connection.makefile().readline())["message"]


def test_a_half_written_line_counts_when_its_connection_ends(home: Home) -> None:
    with agent(home, *OFFLINE) as each:
        each.until("agent_ready")
        with each.connect() as connection:
            connection.sendall(b"user hello")
        each.until("turn_end")
        assert texts(each.lines, "user_message") == ["hello"]


def test_the_newest_connection_replaces_the_older_whose_words_are_kept(home: Home) -> None:
    with agent(home, *OFFLINE) as each:
        each.until("agent_ready")
        with each.connect() as older:
            older.sendall(b"user from the older\n")
            newer = each.connect()
            newer.sendall(b'{"type":"Describe"}\n')
            assert newer.recv(1 << 16)
            each.until("turn_end")
            assert texts(each.lines, "user_message") == ["from the older"]
            with older.makefile() as answers:
                assert [json.loads(answer) for answer in answers] == [{"line": 1, "type": "ok"}]
            newer.close()


def test_a_stale_socket_is_replaced(home: Home) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(home.folder / "inbox"))
    with agent(home, *OFFLINE) as each:
        each.until("agent_ready")
        each.send("user hello")
        each.until("turn_end")


async def test_a_socket_that_could_not_be_asked_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(path: Path) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    first, second = (Inbox(tmp_path / "inbox", lambda *_: None, lambda _: None) for _ in range(2))
    await first.listen()
    monkeypatch.setattr(asyncio, "open_unix_connection", fail)
    with pytest.raises(ChildNotListening, match="Too many open files"):
        await second.listen()
    assert first.is_there()
    await first.close()


def test_a_second_agent_steals_neither_the_socket_nor_the_session_of_one_that_lives(home: Home) -> None:
    with agent(home, *OFFLINE) as each:
        each.until("agent_ready")
        for arguments in (("--inbox", str(each.inbox)), ("--inbox", str(home.folder / "other"))):
            done = home.polypod("agent", *arguments, "--session", "s1", *OFFLINE, "--", "hello")
            assert done.code == 1
            assert [line["type"] for line in done.lines] == ["error", "agent_stopped"]
            assert (done.lines[-1]["reason"], done.lines[-1]["code"]) == ("exit", 1)
            assert done.lines[-1]["error"] == done.lines[0]["message"]
        each.send("user hello")
        each.until("turn_end")


def test_a_path_too_long_for_a_socket_is_refused_in_words(home: Home) -> None:
    done = home.polypod("agent", "--inbox", str(home.folder / ("x" * 100)), *OFFLINE)
    assert "100 bytes" in done.lines[0]["message"]


def test_without_a_path_it_listens_in_the_runtime_folder(home: Home) -> None:
    home.env["POLYPOD_AGENT_ID"] = "tests-1"
    with TemporaryDirectory(dir="/tmp") as folder:
        home.env["XDG_RUNTIME_DIR"] = folder
        _listens_in(home, Path(folder))


def _listens_in(home: Home, folder: Path) -> None:
    with home.start("agent", *OFFLINE) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["inbox"] == str(folder / "polypod" / "agents" / "tests-1.inbox")
        assert stat.S_IMODE(Path(ready["inbox"]).parent.stat().st_mode) == 0o700
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_a_resumed_agent_does_not_repeat_its_task(home: Home) -> None:
    with agent(home, *OFFLINE, "--", "hello") as each:
        each.until("turn_end")
        each.send("shutdown")
        each.until("agent_stopped")
    with agent(home, *OFFLINE, "--", "hello") as again:
        again.until("agent_ready")
        again.send("user more")
        again.until("turn_end")
        assert texts(again.lines, "user_message") == ["more"]


@pytest.mark.parametrize("how", ["shutdown", "SIGTERM", "SIGKILL"])
def test_a_turn_that_a_shutdown_interrupts_can_be_resumed(home: Home, how: str) -> None:
    with silent_server() as (url, came):
        options = ("--model", "ollama/x", "--base-url", url)
        each = Agent(home, *options, "--", "hello")
        each.until("turn_start")
        assert came.wait(60)
        if how == "shutdown":
            each.send("shutdown")
        else:
            each.process.send_signal(getattr(signal, how))
        if how != "SIGKILL":
            each.until("turn_end", step=1, outcome="paused", error=None)
            each.until("agent_stopped", reason="shutdown")
        each.process.communicate()
    with agent(home, *OFFLINE) as again:
        again.until("agent_ready")
        assert again.send('{"type":"Describe"}')[0]["value"]["state"] == "paused"
        again.send('{"type":"Resume"}')
        again.until("turn_end", outcome="finished")


def test_an_agent_that_nobody_can_reach_any_more_ends(home: Home) -> None:
    with agent(home, *OFFLINE) as each:
        each.until("agent_ready")
        each.inbox.unlink()
        each.until("agent_stopped", reason="inbox_closed", code=0)


def test_an_agent_without_work_ends_after_its_idle_timeout(home: Home) -> None:
    with agent(home, *OFFLINE, "--idle-timeout", "0.2", "--", "hello") as each:
        each.until("turn_end")
        each.until("agent_stopped", reason="idle", code=0)


def test_keys_come_by_standard_input_and_stand_nowhere(home: Home) -> None:
    tools = home.write(
        "mytools.py",
        "import os\nfrom polypod import tool\n"
        "@tool\ndef key_of(name: str) -> str:\n"
        '    "A key."\n'
        "    print('a tool prints')\n"
        "    return os.environ.get(name, 'none') + ' ' + os.environ.get('POLYPOD_AGENT_CREDENTIALS', 'unset')\n",
    )
    home.env["POLYPOD_AGENT_CREDENTIALS"] = "stdin"
    with agent(home, *OFFLINE, "--tools", str(tools), stdin=subprocess.PIPE) as each:
        assert each.process.stdin is not None
        each.process.stdin.write('{"openai": "secret-1", "MY_KEY": "secret-2"}')
        each.process.stdin.flush()  # and it stays open
        each.until("agent_ready")
        for name, value in (("OPENAI_API_KEY", "secret-1"), ("MY_KEY", "secret-2")):
            each.send(f"user use key_of name={name}")
            assert each.until("tool_result")["content"][0]["text"] == f"{value} unset"
            each.until("turn_end")
        assert b"secret" not in Path(f"/proc/{each.process.pid}/environ").read_bytes()


def test_credentials_that_are_none_are_an_error(home: Home) -> None:
    home.env["POLYPOD_AGENT_CREDENTIALS"] = "stdin"
    done = home.polypod("agent", "--inbox", str(home.folder / "inbox"), *OFFLINE, words="secret-1")
    assert done.code == 1
    assert "JSON object" in done.lines[0]["message"]
    assert "secret-1" not in done.out + done.err


@pytest.mark.parametrize("name", ["A=B", "", "nul\0", "MY_KEY"])
def test_credentials_that_cannot_be_variables_are_an_error(home: Home, name: str) -> None:
    home.env["POLYPOD_AGENT_CREDENTIALS"] = "stdin"
    keys = json.dumps({name: "secret-1\0" if name == "MY_KEY" else "secret-1"})
    done = home.polypod("agent", "--inbox", str(home.folder / "inbox"), *OFFLINE, words=keys)
    assert done.code == 1
    assert [each["type"] for each in done.lines] == ["error", "agent_stopped"]
    assert "cannot be an environment variable" in done.lines[0]["message"]
    assert "secret-1" not in done.out + done.err


def test_what_it_prints_goes_into_its_log_once_nobody_reads_it(home: Home) -> None:
    log = home.folder / "log.jsonl"
    home.env["POLYPOD_AGENT_LOG"] = str(log)
    with agent(home, *OFFLINE) as each:
        each.until("agent_ready")
        assert not log.exists()
        assert each.process.stdout is not None
        each.process.stdout.close()
        each.process.stdout = Path(os.devnull).open()  # noqa: SIM115 - for ``communicate``
        each.send("user hello")
        each.send("shutdown")
        assert each.process.wait(60) == 0
    kinds = [json.loads(line)["type"] for line in log.read_text().splitlines()]
    assert kinds[-1] == "agent_stopped"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_a_reader_who_takes_nothing_does_not_hold_up_the_inbox(home: Home) -> None:
    with agent(home, *OFFLINE) as each:
        each.until("agent_ready")
        for _ in range(100):
            with each.connect() as connection:
                connection.sendall(b"nonsense\n" * 100)
        assert each.send('{"type":"Describe"}')[0]["type"] == "ok"


def test_a_command_that_an_agent_started_ends_with_it(home: Home) -> None:
    with agent(home, *OFFLINE, "--allow", str(home.folder)) as each:
        each.until("agent_ready")
        each.send("user run sleep 1000")
        each.until("tool_call")
        os.kill(each.process.pid, signal.SIGKILL)
        each.process.wait()
        each.inbox.unlink()
    marks = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and str(home.folder) in _command_line(entry)
    ]
    wait_until_none(lambda: {pid for pid in marks if Path(f"/proc/{pid}").exists()})


def _command_line(entry: Path) -> str:
    try:
        return (entry / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
