"""``polypod swarm``: agents in the background, looked after by one process for each folder."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_kit import COMMAND
from hypothesis import given
from hypothesis import strategies as st
from person import CTRL_C, person
from process_kit import living, wait_until_none
from rich.cells import cell_len
from store_kit import NOBODY
from swarm_kit import Swarm, swarm_in

from actors.cli.swarm.rows import GROUPS, Row, group_of, lines_of
from actors.cli.swarm.service import Service
from actors.cli.swarm.wire import socket_of
from actors.runtime.children.launcher import Launcher
from actors.swarm.agents.agent import Agent
from actors.swarm.agents.ids import find_id
from actors.swarm.agents.swarm import Swarm as Agents
from actors.system import PodSystem
from protocol.agents import ENDED, LIVING
from protocol.errors import Failure
from protocol.events import ApprovalRequested

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Swarm]:
    with swarm_in(tmp_path) as swarm:
        yield swarm


def test_an_agent_is_started_listed_sent_to_stopped_resumed_and_removed(home: Swarm) -> None:
    home.write("a.txt", "one two three")
    agent = home.started("count words in a.txt", "--wait", "--name", "counter")
    assert "3 words" in agent
    [row] = home.swarm("ls", "--json").lines
    assert (row["status"], row["runner"], row["task"]) == ("idle", "pod", "count words in a.txt")
    assert row["id"].startswith("counter-")
    assert "3 words" in home.swarm("send", "counter", "count words in a.txt", "--wait").out
    logged = home.swarm("logs", "counter")
    assert logged.out.count("run finished") == 2
    assert [line["type"] for line in home.swarm("logs", "counter", "--json").lines].count("AgentIdle") == 2
    assert "still running" in home.swarm("rm", "counter").err
    assert "was killed" in home.swarm("stop", "counter").err
    assert home.swarm("ls").out.startswith("ended (1)")
    assert home.swarm("resume", "counter").code == 0
    assert "3 words" in home.swarm("send", "counter", "count words in a.txt", "--wait").out
    home.swarm("stop", "counter")
    assert "is removed" in home.swarm("rm", "counter").err
    done = home.swarm("ls")
    assert (done.out, done.code) == ("", 0)


def test_commands_that_come_together_start_one_service(home: Swarm) -> None:
    processes = [home.start("swarm", "start", "hello", "--model", "offline") for _ in range(4)]
    ends = [each.communicate(timeout=60) for each in processes]
    assert [each.returncode for each in processes] == [0] * 4, ends
    assert len({out for out, _ in ends}) == 4
    assert len(home.swarm("ls", "--json").lines) == 4


def test_a_service_that_nobody_needs_ends_and_the_next_command_starts_another(home: Swarm) -> None:
    home.env["POLYPOD_SWARM_IDLE"] = "0.1"
    home.started("hello")
    pid = home.service()
    home.swarm("stop", "hello")
    wait_until_none(lambda: {pid} & living())
    assert not list(Path(home.env["XDG_RUNTIME_DIR"]).glob("polypod/*"))
    home.env["POLYPOD_SWARM_IDLE"] = "60"
    assert [row["status"] for row in home.swarm("ls", "--json").lines] == ["killed"]
    assert home.service() != pid


def test_a_key_that_the_service_does_not_have_is_named_where_an_agent_is_started(home: Swarm) -> None:
    assert home.swarm("start", "hello", "--model", "offline").err.count("variables") == 0
    home.env.update(SHOP_KEY="s3cret", SHOP_COLOUR="red")
    started = home.swarm("start", "hello", "--model", "offline")
    assert started.code == 0
    assert "these differ from here: SHOP_KEY (" in " ".join(started.err.split())
    assert "s3cret" not in started.err


SLEEPER = """
[pod]
name = "sleeper"
[model]
scheme = "offline"
[tools]
builtin = ["shell"]
[approvals]
default = "allow"
"""
LISTENING = f"{sys.executable} -I -S {Path(__file__).parents[1] / 'swarm' / 'programs' / 'listening.py'}"


def kill_service(home: Swarm) -> None:
    pid = home.service()
    os.kill(pid, signal.SIGKILL)
    wait_until_none(lambda: {pid} & living())


def wait_for(home: Swarm, agent: str, kind: str, words: str = "") -> None:
    """Return once an agent has recorded such an event with these words in it."""
    with home.start("swarm", "attach", agent, "--json") as following:
        assert following.stdout is not None
        next(line for line in following.stdout if f'"type":"{kind}"' in line and words in line)
        following.kill()


@pytest.mark.slow
def test_five_agents_of_a_service_that_is_killed_go_on_as_each_is_to(home: Swarm) -> None:
    home.write("sleeper.toml", SLEEPER)
    sleep = ('use shell command="sleep 1000"', "--manifest", "sleeper.toml")
    home.swarm("start", *sleep, "--name", "goes-on", "--restart", "resume")
    home.swarm("start", *sleep, "--name", "waits", "--restart", "pause", "--runner", "process")
    kept = home.started("hello", "--name", "kept", "--runner", "process", "--keep", "--wait")
    home.swarm("start", "hello", "--name", "listens", "--runner", LISTENING, "--wait")
    home.started("hello", "--name", "stopped", "--wait")
    home.swarm("stop", "stopped")
    for name in ("goes-on", "waits"):
        wait_for(home, name, "AssistantMessage")
    before = {row["id"].rpartition("-")[0]: row for row in home.swarm("ls", "--json").lines}
    kill_service(home)
    done = home.swarm("send", "goes-on", "hello", "--wait")
    assert done.code == 0, (done, home.swarm("logs", "goes-on", "--json").out)
    wait_for(home, "waits", "AgentIdle")
    after = {row["id"].rpartition("-")[0]: row for row in home.swarm("ls", "--json").lines}
    stands = {name: (row["status"], row["result"], row["is_paused"]) for name, row in after.items()}
    assert stands == {
        "goes-on": ("idle", "done", False),
        "waits": ("idle", "killed", True),
        "kept": ("idle", "done", False),
        "listens": ("failed", "done", False),
        "stopped": ("killed", "done", False),
    }
    assert kept
    assert after["kept"]["pid"] == before["kept"]["pid"]
    assert "needs you (1)" in home.swarm("ls").out
    assert home.swarm("resume", "--all", "--json").lines[0]["id"] == after["listens"]["id"]
    assert home.swarm("send", "waits", "go on", "--wait").code == 0
    assert home.swarm("logs", "goes-on", "--json").out.count('"AgentRestarted"') == 1


def test_only_who_was_at_work_or_has_a_question_needs_somebody_after_its_service_was_killed(
    home: Swarm,
) -> None:
    """All did, as failed agents."""
    home.write("sleeper.toml", SLEEPER)
    home.swarm("start", 'use shell command="sleep 1000"', "--manifest", "sleeper.toml", "--name", "works")
    home.started("hello", "--name", "done", "--wait")
    home.write("asks.txt", "Which town?")
    home.started("read asks.txt", "--name", "asks", "--wait")
    wait_for(home, "works", "AssistantMessage")
    kill_service(home)
    needs, _, ended = home.swarm("ls").out.partition("ended (1)\n")
    assert "needs you (2)" in needs
    assert re.search("✗ fail +works.*its supervisor died", needs)
    assert "asks-" in needs
    assert re.search("✓ done +done-.*I am polypod's offline model", ended)


def test_who_waits_for_a_task_waits_on_where_the_service_is_killed(home: Swarm) -> None:
    home.write("sleeper.toml", SLEEPER)
    sleep = ('use shell command="sleep 1000"', "--manifest", "sleeper.toml", "--name", "goes-on")
    waiting = home.start("swarm", "start", *sleep, "--restart", "resume", "--wait")
    while not home.swarm("ls", "--json").lines:
        pass
    wait_for(home, "goes-on", "AssistantMessage")
    kill_service(home)
    out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, err) == (0, "")
    assert "interrupted" in out


def test_after_a_loss_of_power_one_command_resumes_all_that_nobody_has_ended(home: Swarm) -> None:
    for name in ("one", "two", "three"):
        home.started("hello", "--name", name, "--wait")
    home.swarm("stop", "two")
    kill_service(home)
    assert "name the agents to resume" in home.swarm("resume").err
    done = home.swarm("resume", "--all")
    assert (done.code, done.err.count("agent "), done.out) == (0, 2, "")
    assert "no agent failed or ended with the service" in home.swarm("resume", "--all").err
    done = home.swarm("resume", "one", "nope", "two")
    assert done.code == 1
    assert "is still running" in done.err
    assert "no agent 'nope'" in done.err
    assert "agent two-" in done.err
    for name in ("one", "two", "three"):
        wait_for(home, name, "AgentRestarted")
        assert home.swarm("send", name, "hello", "--wait").code == 0


def test_an_agent_that_its_service_dies_with_again_and_again_is_started_no_more(home: Swarm) -> None:
    home.started("hello", "--restart", "pause", "--wait")
    for _ in range(3):
        kill_service(home)
        assert [row["status"] for row in home.swarm("ls", "--json").lines] != ["failed"]
    kill_service(home)
    assert [row["status"] for row in home.swarm("ls", "--json").lines] == ["failed"]


def test_agents_of_a_service_that_was_killed_have_failed_and_go_on(home: Swarm) -> None:
    home.started("hello", "--wait")
    pid = home.service()
    os.kill(pid, signal.SIGKILL)
    wait_until_none(lambda: {pid} & living())
    [row] = home.swarm("ls", "--json").lines
    assert (row["status"], row["result"], row["error"]["message"]) == (
        "failed",
        "done",
        "its supervisor died",
    )
    assert home.swarm("resume", "hello").code == 0
    assert home.swarm("send", "hello", "hello", "--wait").out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["send", "nope", "hi"], 2, "no agent 'nope'"),
        (["start", "x", "--runner", "no-such"], 2, "no runner 'no-such'"),
        (["start", "x", "--runner", "sh 'x"], 2, "--runner is not a valid command"),
        (["start", " "], 2, "the task is empty"),
        (["start", "x", "--cwd", "/no/such"], 2, "no directory /no/such"),
        (["start", "x", "--runner", "/no/such --program", "--wait"], 1, "/no/such"),
        (["approve", "nope"], 2, "no approval waits"),
        (["logs", "nope"], 2, "no agent"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(home: Swarm, words: list[str], code: int, said: str) -> None:
    done = home.swarm(*words)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert "Traceback" not in done.err
    assert "internal error" not in done.err


def test_garbage_on_the_socket_hurts_nobody(home: Swarm) -> None:
    home.started("hello")
    for garbage in (b"\xff\n", b"{}\n", b'{"do":"no such"}\n', b'{"do":"send","x":1}\n', b"half", b"\n"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(home.socket))
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.makefile("rb").read()
        assert answer == b"" or json.loads(answer)["error"]["message"]
    assert home.swarm("ls").code == 0
    assert oct(home.socket.parent.stat().st_mode & 0o777) == "0o700"


def test_who_attaches_sees_what_happens_and_leaves_it_at_work(home: Swarm) -> None:
    agent = home.started("hello")
    with person(home, "swarm", "attach", "hello") as somebody:
        somebody.sees("agent waits for a message")
        home.swarm("send", "hello", "help", "--wait")
        somebody.sees("run finished")
        somebody.press(CTRL_C)
        somebody.sees("agent hello is left as it is")
        assert somebody.leaves_with() == 130
        assert "Traceback" not in somebody.seen
    assert [row["id"] for row in home.swarm("ls", "--json").lines if row["status"] == "idle"] == [agent]


def test_who_is_attached_follows_the_agent_in_the_next_service_where_that_is_killed(home: Swarm) -> None:
    home.started("hello", "--restart", "resume", "--wait")
    with person(home, "swarm", "attach", "hello") as somebody:
        somebody.sees("agent waits for a message")
        kill_service(home)
        somebody.sees("reading on from a new one")
        somebody.sees("agent waits for a message")
        assert "run started" not in somebody.before  # nothing is shown twice
        home.swarm("send", "hello", "help", "--wait")
        somebody.sees("run finished")
        home.swarm("stop", "hello")
        assert somebody.leaves_with() == 0


@pytest.mark.parametrize("columns", [40, 100])
def test_a_list_keeps_to_the_width_of_its_terminal(home: Swarm, columns: int) -> None:
    home.started("say a thing that is longer than any terminal is wide " * 4, "--name", "of-many-letters")
    home.swarm("start", "x", "--runner", "/no/such/program", "--wait")
    with person(home, "swarm", "ls", columns=columns) as somebody:
        seen = ""
        for words in ("needs you (1)", "cannot", "ended (1)"):
            somebody.sees(words)
            seen += somebody.before + words
        lines = _ESCAPES.sub("", seen).replace("\r\n", "\n").split("\n")
        assert max(map(cell_len, lines)) <= columns
        assert somebody.leaves_with() == 0


ASKING = """
[pod]
name = "clerk"
[model]
scheme = "offline"
[tools]
builtin = ["shell"]
[[approval]]
tool = "shell"
policy = "ask"
"""


def ask_for_approval(home: Swarm) -> str:
    """The approval that a new agent waits for."""
    home.write("ask.toml", ASKING)
    done = home.swarm("start", 'use shell command="true"', "--manifest", "ask.toml")
    return wait_for_approval(home, done.out.strip())


def wait_for_approval(home: Swarm, agent: str) -> str:
    """The approval that an agent waits for, as soon as it does."""
    with home.start("swarm", "attach", agent, "--json") as following:
        assert following.stdout is not None
        events = map(json.loads, following.stdout)
        asked = next(event["approval_id"] for event in events if event["type"] == "ApprovalRequested")
        following.kill()
    return str(asked)


def waiting(home: Swarm) -> list[str]:
    """The approvals that all agents wait for."""
    return [each["approval_id"] for row in home.swarm("ls", "--json").lines for each in row["approvals"]]


def test_a_pod_that_is_kept_outlives_the_service_and_is_found_by_the_next(home: Swarm) -> None:
    kept = ("--runner", "process", "--keep")
    done = home.swarm("start", "hello", *kept, "--allow", ".")
    assert "cannot be kept" in done.err
    agent = home.started("hello", *kept, "--name", "kept")
    home.swarm("send", agent, "hello", "--wait")
    service = home.service()
    os.kill(service, signal.SIGKILL)
    wait_until_none(lambda: {service} & living())
    home.write("a.txt", "one two three")
    assert "3 words" in home.swarm("send", agent, "count words in a.txt", "--wait").out
    [pid] = [row["pid"] for row in home.swarm("ls", "--json").lines]
    assert pid in living()
    home.swarm("stop", agent)
    assert pid not in living()


def test_a_service_is_found_from_where_the_runtime_folder_is_another(home: Swarm, tmp_path: Path) -> None:
    agent = home.started("hello")
    mine = home.env["XDG_RUNTIME_DIR"]
    home.env["XDG_RUNTIME_DIR"] = str(tmp_path)
    assert home.swarm("ls", "--json").lines[0]["id"] == agent
    home.env["XDG_RUNTIME_DIR"] = mine


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_socket_that_another_user_listens_on_is_asked_nothing(
    home: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", home.env["XDG_RUNTIME_DIR"])
    path = socket_of(home.root)
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        os.seteuid(NOBODY)
        listening.listen()
        os.seteuid(0)
        assert home.swarm("ls").code == 0
        listening.settimeout(0)
        with contextlib.suppress(BlockingIOError), listening.accept()[0] as connection:
            assert connection.recv(1) == b""


def test_who_waits_for_a_task_that_is_cancelled_gets_no_success(home: Swarm) -> None:
    home.write("ask.toml", ASKING)
    task = 'use shell command="true"'
    asking = home.start("swarm", "start", task, "--name", "clerk", "--manifest", "ask.toml", "--wait")
    while not home.swarm("ls", "--json").lines:
        pass
    wait_for_approval(home, "clerk")
    home.swarm("cancel", "clerk")
    _, err = asking.communicate(timeout=60)
    assert asking.returncode == 1
    assert "the task of agent clerk-" in err
    assert "was cancelled" in err


def test_logs_have_what_an_agent_does_now_and_end_there(home: Swarm) -> None:
    home.write("ask.toml", ASKING)
    home.swarm("start", "hello", "--name", "clerk", "--manifest", "ask.toml", "--wait")
    home.swarm("send", "clerk", 'use shell command="true"')
    wait_for_approval(home, "clerk")
    logged = home.swarm("logs", "clerk", "--json").lines
    assert [each["type"] for each in logged].count("ApprovalRequested") == 1
    assert home.swarm("logs", "clerk", "--since", "1000").code == 0


def test_an_answer_without_an_id_answers_nothing(home: Swarm) -> None:
    asked = ask_for_approval(home)
    for command in ("approve", "deny"):
        done = home.swarm(command, "")
        assert (done.code, done.out) == (2, "")
        assert "no approval waits under ''" in done.err
    assert waiting(home) == [asked]
    assert home.swarm("approve", asked[:6]).code == 0
    assert waiting(home) == []


def test_whoever_answers_an_agent_reads_which_of_its_calls_wait(home: Swarm) -> None:
    asked = ask_for_approval(home)
    [agent] = [row["id"] for row in home.swarm("ls", "--json").lines]
    for command in ("approve", "deny"):
        done = home.swarm(command, agent[:3])
        assert (done.code, done.out) == (2, "")
        assert f"'{agent[:3]}' is an agent" in done.err
        assert asked in done.err
    assert waiting(home) == [asked]


def test_whoever_no_longer_waits_for_a_task_reads_that_it_goes_on_and_where(home: Swarm) -> None:
    home.write("ask.toml", ASKING)
    task = (
        "swarm",
        "start",
        'use shell command="true"',
        "--name",
        "clerk",
        "--manifest",
        "ask.toml",
        "--wait",
    )
    with person(home, *task) as somebody:
        somebody.sees("agent clerk-")
        asked = wait_for_approval(home, "clerk")
        somebody.press(CTRL_C)
        somebody.sees("agent clerk-")
        somebody.sees("is left as it is")
        assert somebody.leaves_with() == 130
    assert waiting(home) == [asked]


def test_an_agent_that_waited_when_the_service_was_killed_waits_again_and_is_answered(home: Swarm) -> None:
    asked = ask_for_approval(home)
    kill_service(home)
    assert waiting(home) == []
    assert home.swarm("resume", "--all").code == 0
    [agent] = [row["id"] for row in home.swarm("ls", "--json").lines]
    wait_for(home, agent, "RunStart", '"reason":"resume"')
    assert waiting(home) == [asked]
    assert home.swarm("approve", asked).code == 0
    wait_for(home, agent, "RunEnd")


async def test_a_program_that_an_agent_has_started_answers_nothing(home: Swarm) -> None:
    asked = ask_for_approval(home)
    launcher = Launcher()
    for command in ("approve", "deny"):
        words = [*COMMAND, "swarm", command, asked]
        child = await launcher.start(words, cwd=home.folder, env=home.env, stderr="stdout")
        said = b""
        while piece := await child.stdout.read(65536):
            said += piece
        assert (await child.wait()).code == 1
        assert b"only a person may answer" in said
    await launcher.aclose()
    assert waiting(home) == [asked]


async def test_a_defect_of_the_service_is_said_to_who_asks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Defective(Agents):
        async def agents(self) -> list[Agent]:
            raise RuntimeError("what nobody has thought of")

    async with PodSystem(store=f"sqlite:{tmp_path / 'pods.db'}") as system:
        service = Service(Defective(system, tmp_path / "swarm"), "")
        async with await asyncio.start_unix_server(service.answer, tmp_path / "s"):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
            writer.write(b'{"do":"ls"}\n')
            answer = json.loads(await reader.read())
            writer.close()
    assert answer["error"]["message"] == "internal error: RuntimeError: what nobody has thought of"
    assert "the request ls failed" in caplog.text


@pytest.mark.parametrize(("takes", "answers"), [(False, b""), (True, b""), (True, b'{"done":tr')])
def test_a_service_that_breaks_off_is_said_in_a_line(
    home: Swarm, monkeypatch: pytest.MonkeyPatch, takes: bool, answers: bytes
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", home.env["XDG_RUNTIME_DIR"])
    path = socket_of(home.root)
    path.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        asking = home.start("swarm", "ls")
        with listening.accept()[0] as connection:
            connection.recv(1 << 16, 0 if takes else socket.MSG_PEEK)
            connection.sendall(answers)
        out, err = asking.communicate(timeout=60)
    path.unlink()
    assert (asking.returncode, out) == (1, "")
    assert "ended in the middle of its answer" in err


def test_what_went_wrong_in_a_service_before_stays_in_its_log_which_is_bounded(home: Swarm) -> None:
    log = home.root / "serve.log"
    home.root.mkdir()
    log.write_text("of an earlier service\n")
    home.started("hello")
    home.end()
    assert "of an earlier service" in log.read_text()
    log.write_text("long ago\n" * 200_000)
    assert home.swarm("ls").code == 0
    assert "long ago" not in log.read_text()
    assert "long ago" in log.with_name("serve.log.1").read_text()
    assert log.stat().st_mode & 0o077 == 0


def test_a_service_that_does_not_start_is_said_in_its_own_words(home: Swarm) -> None:
    home.root.mkdir()
    (home.root / "serve.log").write_text("of an earlier service\n")
    done = home.swarm("ls", "--store", "sqlite:/dev/null/pods.db")
    assert done.code == 1
    assert "did not start" in done.err
    assert "of an earlier service" not in done.err


def test_a_service_that_cannot_even_write_why_it_does_not_start_is_said_to_be_one(home: Swarm) -> None:
    started = home.start(
        "swarm", "ls", "--store", "sqlite:/dev/null/pods.db",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )  # fmt: skip
    with started as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"did not start: it could not write the reason to {home.root / 'serve.log'}" in said


def test_agents_are_listed_as_their_files_have_them_where_no_service_starts(home: Swarm) -> None:
    home.started("hello", "--name", "stopped", "--wait")
    home.swarm("stop", "stopped")
    cut = home.swarm("start", "hello", "--model", "offline", "--name", "cut").out.strip()
    home.end()
    listed = home.swarm("ls", "--json").lines
    home.end()
    lock = home.root / "serve.lock"
    lock.unlink()
    lock.mkdir()  # no service starts
    shown = home.swarm("ls", "--json")
    assert (shown.code, "did not start" in shown.err) == (1, True)
    names = ("id", "result", "task", "runner", "cwd", "created_at", "session_id")
    assert [[row[name] for name in names] for row in shown.lines] == [
        [row[name] for name in names] for row in listed
    ]
    (home.root / "agents" / cut / "stdout.log").unlink()
    assert "detach" in home.swarm("ls").out


def test_a_width_that_is_none_is_as_good_as_no_width(home: Swarm) -> None:
    home.env["COLUMNS"] = "wide"
    home.started("hello")
    assert "hello-" in home.swarm("ls").out


def test_a_store_is_the_one_that_is_named_from_where_the_command_is(home: Swarm) -> None:
    home.started("hello", "--store", "sqlite:mine.db")
    assert home.polypod("ps", "--store", "sqlite:mine.db").out.count("hello-") > 0
    assert home.swarm("ls", "--store", "sqlite:mine.db").code == 0
    done = home.swarm("ls", "--store", "sqlite:other.db")
    assert (done.code, done.out) == (1, "")
    assert f"are kept in sqlite:{home.folder}/mine.db" in done.err


def test_agents_of_another_store_are_not_left_out_in_silence(home: Swarm) -> None:
    agent = home.started("hello", "--store", "sqlite:mine.db")
    home.end()
    done = home.swarm("ls")
    assert (done.code, done.out) == (0, "")
    assert f"{agent}: it has no session" in done.err
    assert "mine.db" in done.err


def test_an_answer_is_whole_at_a_terminal(home: Swarm) -> None:
    with person(home, "swarm", "start", "hello", "--model", "offline", "--wait", columns=40) as somebody:
        somebody.sees("by “then”.")  # the last words
        assert somebody.leaves_with() == 0


rows = st.builds(
    Row,
    id=st.from_regex(r"[a-z][a-z-]{0,23}-[0-9]{1,6}", fullmatch=True),
    status=st.sampled_from(sorted({*LIVING, *ENDED, "detached"})),
    result=st.sampled_from(["pending", "done", "failed", "killed"]),
    is_paused=st.booleans(),
    activity=st.text(max_size=40),
    task=st.text(max_size=200),
    runner=st.just("pod"),
    cwd=st.just("/"),
    created_at=st.floats(0, 2e9),
    session_id=st.just("s"),
    text=st.text(max_size=200),
    error=st.none() | st.builds(Failure, st.just("AgentFailed"), st.text(max_size=200)),
)


@given(st.lists(rows, max_size=12), st.sampled_from([40, 60, 100]))
def test_each_agent_has_one_line_in_its_group(listed: list[Row], width: int) -> None:
    lines = lines_of(listed, 1e9, width)
    assert sum(line.tone == "user" for line in lines) == len({group_of(row) for row in listed})
    assert {group_of(row) for row in listed} <= set(GROUPS)
    assert len([line for line in lines if line.tone != "user"]) == len(listed)
    assert all(len(line.text) <= width and "\n" not in line.text for line in lines)


def row_of(agent_id: str = "a-1", **fields: object) -> Row:
    known = {
        "activity": "idle",
        "task": "t",
        "runner": "pod",
        "cwd": "/",
        "created_at": 0.0,
        "session_id": "s",
    }
    return Row(**{"id": agent_id, "status": "idle", "result": "done", **known, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("group", "fields"),
    [
        ("ended", {"text": "All tests pass."}),
        ("needs you", {"text": "The tests pass. Shall I **push?**\n"}),
        ("needs you", {"result": "failed"}),
        ("needs you", {"result": "killed", "is_paused": True}),
        ("ended", {"result": "killed"}),
        ("needs you", {"status": "waiting"}),
        ("needs you", {"status": "failed", "result": "failed"}),
        ("ended", {"status": "failed", "text": "All tests pass."}),  # its service was killed later
        ("needs you", {"status": "failed", "text": "Shall I push?"}),
        ("ended", {"status": "done", "text": "Shall I push?"}),
        ("ended", {"status": "killed"}),
        ("needs you", {"status": "killed", "is_cut_off": True}),
        ("ended", {"status": "done", "is_cut_off": True}),
        ("working", {"status": "running"}),
    ],
)
def test_an_agent_that_did_its_task_well_needs_nobody(group: str, fields: dict[str, object]) -> None:
    assert group_of(row_of(**fields)) == group


@pytest.mark.parametrize("width", [40, 60, 100])
def test_ids_that_begin_alike_differ_at_any_width(width: int) -> None:
    rows = [row_of(f"fix-the-failing-tests-in-{n}") for n in (118204, 118205, 7)]
    shown = [line.text.split()[2] for line in lines_of(rows, 0, width)[1:]]
    assert len(set(shown)) == 3
    assert [find_id(each, [row.id for row in rows]) for each in shown] == [row.id for row in rows]


@pytest.mark.parametrize("width", [40, 60, 80])
def test_the_id_of_an_approval_is_shown_at_any_width_however_long_the_tools_name(width: int) -> None:
    tool = "everything__trigger-long-running-operation"
    asked = ApprovalRequested(
        pod="p", session_id="s", seq=1, at=0.0, approval_id="3ce8feaeb29db123", tool=tool
    )
    row = row_of("fix-the-failing-tests-in-118204", status="waiting", approvals=(asked,))
    assert " 3ce8fe" in lines_of([row], 0, width)[1].text


def test_a_root_that_is_no_folder_is_said_so(home: Swarm) -> None:
    home.env["POLYPOD_SWARM"] = str(home.write("file", "no folder") / "below")
    done = home.swarm("ls")
    assert done.code == 1
    assert "Traceback" not in done.err
    assert "Not a directory" in done.err


def test_the_record_of_an_agent_is_no_session_of_a_pod_to_go_on_with(home: Swarm) -> None:
    agent = home.started("hello")
    [row] = home.swarm("ls", "--json").lines
    done = home.polypod("resume", row["session_id"], "more")
    assert done.code == 1
    assert f"belongs to agent {agent}" in done.err
    assert f"polypod swarm resume {agent}" in done.err


#: A program that prints our lines: it does its task, and ends.
_PROGRAM = """
import json, sys, time
for line in (
    {"type": "agent_ready"},
    {"type": "turn_start", "step": 1},
    {"type": "assistant_message", "content": [{"type": "text", "text": "did " + sys.argv[-1]}]},
    {"type": "turn_end", "step": 1, "outcome": "finished"},
    {"type": "agent_stopped", "reason": "exit"},
):
    print(json.dumps({"time": time.time(), **line}), flush=True)
"""


def test_a_runner_of_polypod_toml_is_started_once_its_file_is_trusted(home: Swarm) -> None:
    home.write("mine.py", _PROGRAM)
    command = json.dumps([sys.executable, str(home.folder / "mine.py")])
    home.write("polypod.toml", f'[[runner]]\nname = "mine"\ncommand = {command}\n')
    refused = home.swarm("start", "the work", "--runner", "mine")
    assert refused.code == 2
    assert "polypod config trust" in refused.err
    assert home.swarm("ls", "--json").out == ""
    digest = home.polypod("config", "trust").err.split("SHA-256 ")[1].split(":")[0]
    assert home.polypod("config", "trust", "--sha256", digest).code == 0
    done = home.swarm("start", "the work", "--runner", "mine", "--wait")
    assert (done.code, done.out) == (0, "did the work\n"), done.err
    assert home.swarm("start", "the work", "--runner", "yours").code == 2


def test_folders_whose_names_are_not_utf8_are_refused_with_words(home: Swarm) -> None:
    folder = home.folder / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    with home.start("swarm", "start", "hi", "--model", "offline", cwd=folder) as process:
        assert "is not UTF-8" in process.communicate(timeout=60)[1]
    assert process.returncode == 2
    home.env["POLYPOD_SWARM"] = str(folder)
    done = home.swarm("ls")
    assert (done.code, "is not UTF-8" in done.err) == (2, True)
    home.env["POLYPOD_SWARM"] = str(home.root)
