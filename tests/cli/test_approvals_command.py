"""``polypod approvals``, ``approve`` and ``deny``: answers from another process, whatever becomes of the pod's."""

import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from click import Context
from command_kit import COMMAND, SHOP, Done, Home, paid
from person import PATIENCE, person
from store_kit import NOBODY, without_privileges

from actors.cli.errors import run_guarded
from actors.cli.main import polypod
from actors.llm.scripted import ScriptedClient, call
from actors.runtime.children.launcher import Launcher
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.events import ApprovalRequested
from protocol.manifest import PodManifest

MANIFEST = """
[pod]
name = "clerk"
[model]
scheme = "offline"
[approvals]
headless = "wait"
[[approval]]
tool = "pay"
match = { to = "mallory" }
policy = "deny"
[[approval]]
tool = "pay"
policy = "ask"
"""


#: What depends on how the store keeps answers, and who holds a session, is tested with each.
EACH_STORE = pytest.mark.parametrize("shop", ["sqlite:pods.db", "jsonl:pods"], indirect=True)


@pytest.fixture
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.env["POLYPOD_STORE"] = getattr(request, "param", "sqlite:pods.db")
    home.write("shop.py", SHOP)
    home.write("clerk.toml", MANIFEST)
    return home


@contextmanager
def asking(home: Home, task: str = "use pay ann") -> Iterator[subprocess.Popen[str]]:
    """A run that waits for approval."""
    run = home.start("run", task, "--manifest", "clerk.toml", "--tools", "shop.py")
    try:
        assert run.stderr is not None
        for line in run.stderr:
            if "polypod approve" in line:
                break
        yield run
    finally:
        run.kill()
        run.communicate()


def waiting(home: Home) -> list[dict[str, Any]]:
    return home.polypod("approvals", "--json").lines


def id_of(home: Home) -> str:
    (only,) = waiting(home)
    return str(only["approval_id"])


@EACH_STORE
@pytest.mark.slow
def test_what_waits_is_listed_and_the_pod_goes_on_with_the_answer(shop: Home) -> None:
    with asking(shop) as run:
        (asked,) = waiting(shop)
        assert (asked["pod"], asked["tool"], asked["arguments"]) == ("clerk", "pay", {"to": "ann"})
        assert asked["holder"]["pid"] == run.pid
        listed = shop.polypod("approvals", shop.env["POLYPOD_STORE"])
        assert asked["approval_id"] in listed.out
        assert "pay(to='ann')" in listed.out
        answered = shop.polypod("approve", asked["approval_id"], "--note", "be quick")
        assert (answered.code, "approved: pay(to='ann') of pod clerk" in answered.err) == (0, True)
        again = shop.polypod("deny", asked["approval_id"])
        assert again.code == 1
        assert "answered" in again.err or "no call waits" in again.err
        run.communicate(timeout=PATIENCE)
        assert run.returncode == 0
    assert paid(shop) == ["ann"]
    assert waiting(shop) == []
    assert "nothing waits" in shop.polypod("approvals").err


def test_what_is_denied_is_not_run_and_the_model_learns_why(shop: Home) -> None:
    with asking(shop) as run:
        assert shop.polypod("deny", id_of(shop), "--note", "not today").code == 0
        run.communicate(timeout=PATIENCE)
    assert paid(shop) == []
    assert "not today" in shop.polypod("events", "--json").out


def test_other_arguments_run_but_none_that_rules_deny_or_that_are_no_object(shop: Home) -> None:
    with asking(shop) as run:
        asked = id_of(shop)
        too_deep = f'{{"to": {"[" * 50_000}{"]" * 50_000}}}'
        for given in ('{"to": "mallory"}', "[1]", "{", '"x"', too_deep):
            refused = shop.polypod("approve", asked, "--arguments", given)
            assert refused.code == 2, refused.err
            assert "defect" not in refused.err
        answered = shop.polypod("approve", asked, "--always", "--arguments", '{"to": "bob"}')
        assert (answered.code, "approved, with changed arguments: pay(to='bob')" in answered.err) == (0, True)
        assert "the pod checks the arguments" in answered.err
        assert "if the tool is an MCP server's, that server does" in answered.err
        run.communicate(timeout=PATIENCE)
    assert paid(shop) == ["bob"]


def test_an_id_that_nobody_asked_under_is_bad_input(shop: Home) -> None:
    garbage = ["", "0" * 17, "x" * 5000, "../../etc/passwd", "%", "é\udce9", "' OR 1=1 --"]
    for each in garbage:
        none = shop.polypod("approve", each)
        assert (none.code, none.out) == (2, ""), each
    with asking(shop):
        for each in garbage:
            for command in ("approve", "deny"):
                done = shop.polypod(command, "--", each)
                assert done.code == 2, each
                assert "no call waits for approval" in done.err, each
        assert len(waiting(shop)) == 1


@EACH_STORE
def test_an_answer_to_a_run_that_was_killed_is_taken_by_the_resume(shop: Home) -> None:
    with asking(shop) as run:
        assert f"waits for approval, in process {run.pid}" in shop.polypod("ps").out
        run.kill()
        run.wait()
    (asked,) = waiting(shop)
    assert asked["holder"] is None
    assert "  interrupted, waits for approval  " in shop.polypod("ps").out
    assert "interrupted, waits for approval\n" in shop.polypod("show", "last").out
    answered = shop.polypod("approve", asked["approval_id"])
    assert "polypod resume" in answered.err
    assert waiting(shop) == []
    assert "  interrupted  " in shop.polypod("ps").out
    assert "already been answered: approved" in shop.polypod("deny", asked["approval_id"]).err
    assert shop.polypod("resume", asked["session_id"]).code == 0
    assert paid(shop) == ["ann"]


@EACH_STORE
def test_a_run_that_is_killed_before_it_gets_its_answer_runs_the_call_once_resumed(shop: Home) -> None:
    with asking(shop) as run:
        run.send_signal(signal.SIGSTOP)
        session = shop.session()
        assert shop.polypod("approve", id_of(shop)).code == 0
        run.kill()
        run.wait()
    assert paid(shop) == []
    assert shop.polypod("resume", session).code == 0
    assert paid(shop) == ["ann"]


@EACH_STORE
def test_a_run_that_is_killed_in_the_approved_call_does_not_run_it_again(shop: Home) -> None:
    with asking(shop, "use pay doomed") as run:
        session = shop.session()
        assert shop.polypod("approve", id_of(shop)).code == 0
        assert run.wait(PATIENCE) == -signal.SIGKILL
    assert waiting(shop) == []
    shop.polypod("resume", session)
    assert "outcome unknown" in shop.polypod("events", "--json").out
    assert paid(shop) == ["doomed"]


@EACH_STORE
def test_of_answers_at_once_from_many_processes_one_holds(shop: Home) -> None:
    with asking(shop) as run:
        run.send_signal(signal.SIGSTOP)
        asked = id_of(shop)

        def answer(number: int) -> Done:
            return shop.polypod("approve" if number % 2 else "deny", asked)

        with ThreadPoolExecutor(4) as threads:
            codes = [done.code for done in threads.map(answer, range(4))]
        assert sorted(codes) == [0, 1, 1, 1]
        run.send_signal(signal.SIGCONT)
        run.communicate(timeout=PATIENCE)
    assert paid(shop) == (["ann"] if codes.index(0) % 2 else [])


@EACH_STORE
def test_a_store_that_may_only_be_read_lists_what_waits_and_takes_no_answer(
    shop: Home, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with asking(shop) as run:
        asked = id_of(shop)
        run.kill()
        run.wait()
    monkeypatch.chdir(shop.folder)
    monkeypatch.setenv("XDG_STATE_HOME", str(shop.state))
    for path in () if os.geteuid() else (shop.state, *shop.state.rglob("*")):
        os.chown(path, NOBODY, NOBODY)  # the token is that of who answers
    store = shop.env["POLYPOD_STORE"]
    for name in "approvals", "approve":  # what they load may not be readable either
        assert polypod.get_command(Context(polypod), name)
    with only_readable(shop):
        assert run_guarded(lambda: polypod(["approvals", store, "--json"], standalone_mode=False)) == 0
        assert asked in capfd.readouterr().out
        assert run_guarded(lambda: polypod(["approve", asked, "--store", store], standalone_mode=False)) == 1
        assert "polypod: cannot use" in capfd.readouterr().err
    assert len(waiting(shop)) == 1


@contextmanager
def only_readable(home: Home) -> Iterator[None]:
    """Nobody but a superuser may write what is in the folder now."""
    before = {path: path.stat().st_mode for path in (home.folder, *home.folder.rglob("*"))}
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        with without_privileges(home.folder.parent):
            yield
    finally:
        for path, mode in before.items():
            with suppress(FileNotFoundError):
                path.chmod(mode)


def test_at_a_terminal_a_question_goes_away_with_an_answer_from_elsewhere(shop: Home) -> None:
    with person(shop, "run", "use pay ann", "--manifest", "clerk.toml", "--tools", "shop.py") as somebody:
        somebody.sees("allow it?")
        assert shop.polypod("approve", id_of(shop)).code == 0
        somebody.sees("\r\nanswered elsewhere")  # and not behind what was typed
        somebody.sees("approved by a person")
        assert somebody.leaves_with() == 0
    assert paid(shop) == ["ann"]


@EACH_STORE
def test_a_fork_does_not_wait_for_what_its_parent_asked(shop: Home) -> None:
    with asking(shop) as run:
        asked = id_of(shop)
        run.kill()
        run.wait()
    session = shop.session()
    fork = shop.polypod("fork", session)
    assert fork.code == 0, fork.err
    assert [each["session_id"] for each in waiting(shop)] == [session]
    assert shop.polypod("approve", asked, "--session", fork.out.split()[-1]).code == 2
    assert shop.polypod("approve", asked, "--session", session).code == 0
    assert paid(shop) == []


@EACH_STORE
def test_with_its_session_an_answer_is_deleted(shop: Home) -> None:
    with asking(shop) as run:
        asked = id_of(shop)
        run.kill()
        run.wait()
    secret = "between you and me"
    assert shop.polypod("approve", asked, "--note", secret).code == 0
    assert shop.polypod("rm", shop.session()).code == 0
    gone = shop.polypod("approve", asked)
    assert gone.code == 2
    if shop.env["POLYPOD_STORE"].startswith("jsonl"):
        assert not any(
            secret.encode() in path.read_bytes() for path in shop.folder.rglob("*") if path.is_file()
        )


def test_lines_for_programs_are_json_even_of_what_no_terminal_shows(shop: Home) -> None:
    with asking(shop, "use pay \x1b[2J"):
        listed = shop.polypod("approvals")
        assert "\x1b" not in listed.out
        assert json.loads(shop.polypod("approvals", "--json").out)["arguments"] == {"to": "\x1b[2J"}


def test_what_is_not_answered_in_time_is_no_more_listed_and_takes_no_answer(shop: Home) -> None:
    shop.write("clerk.toml", MANIFEST.replace('"wait"', '"wait"\ntimeout = 0.1'))
    with asking(shop) as run:
        run.communicate(timeout=PATIENCE)
        assert run.returncode == 0
    assert "nobody answered within 0.1 s" in shop.polypod("events", "--json").out
    assert waiting(shop) == []
    assert paid(shop) == []


@EACH_STORE
def test_how_long_a_call_may_wait_is_listed_and_one_that_was_interrupted_is_denied_after_it(
    shop: Home,
) -> None:
    shop.write("clerk.toml", MANIFEST.replace('"wait"', '"wait"\ntimeout = 3600'))
    with asking(shop):
        assert " left" in shop.polypod("approvals").out
        assert waiting(shop)[0]["timeout"] == 3600
    shop.write("clerk.toml", MANIFEST.replace('"wait"', '"wait"\ntimeout = 0.2'))
    with asking(shop, "use pay bob") as run:
        run.kill()
        run.wait()
    (event,) = [
        each
        for each in shop.polypod("events", "--json").lines
        if each["type"] == "ApprovalRequested" and each["timeout"] == 0.2
    ]
    while time.time() < event["at"] + 0.2:
        pass  # the clock itself is what is waited for
    late = shop.polypod("approve", event["approval_id"])
    assert (late.code, "not answered in time" in late.err) == (1, True)
    assert shop.polypod("resume", event["session_id"]).code == 0
    assert paid(shop) == []


@pytest.mark.parametrize("columns", [40, 100])
@pytest.mark.parametrize("colours", [True, False])
def test_at_a_terminal_all_that_waits_can_be_read_however_narrow(
    tmp_path: Path, columns: int, *, colours: bool
) -> None:
    home = Home(tmp_path)
    home.env |= {} if colours else {"NO_COLOR": "1"}
    home.write("shop.py", SHOP)
    home.write("clerk.toml", MANIFEST.replace('"wait"', '"wait"\ntimeout = 3600'))
    with asking(home, f"use pay {'a-very-long-name-' * 6}end") as run:
        (asked,) = waiting(home)
        with person(home, "approvals", columns=columns) as somebody:
            somebody.sees("polypod approve")
            seen = _ESCAPES.sub("", somebody.before).replace("\r", "")
            assert ("\x1b[3" in somebody.before) == colours
            assert somebody.leaves_with() == 0
    lines = seen.splitlines()
    assert all(len(line) <= columns for line in lines[:-1])
    together = "".join(line.strip() for line in lines)
    for words in (
        asked["approval_id"], "pay(to='a-very", "-end')", "min", "left", "pod clerk", asked["session_id"][-12:], str(run.pid)
    ):  # fmt: skip
        assert words in together


_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]")


async def test_the_beginning_of_an_id_is_enough_and_one_that_several_have_lists_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(home.state))
    home.env["POLYPOD_STORE"] = "sqlite:pods.db"
    many = range(17)  # of so many ids two begin with the same digit
    async with PodSystem(f"sqlite:{home.folder / 'pods.db'}") as system:
        manifest = PodManifest.of(
            name="clerk", approvals={"headless": "wait"}, approval=[{"tool": "pay", "policy": "ask"}]
        )
        calls = sum((call("pay", {"to": f"n{number}"}) for number in many), call("nope", {}))
        pod = await system.spawn(manifest, client=ScriptedClient([calls]), tools=[tool(pay)])
        with pod.subscribe(ApprovalRequested) as asked:
            pod.run("go")
            ids = [(await anext(asked)).approval_id for _ in many]
    digits = Counter(each[0] for each in ids)
    digit, number = digits.most_common(1)[0]
    several = home.polypod("approve", digit)
    assert (several.code, f"{number} calls wait for approval under {digit!r}" in several.err) == (2, True)
    for each in ids:
        assert (f"  {each}  pay(to=" in several.err) == (each[0] == digit)
    one = next(each for each in ids if each[0] == digit)
    enough = next(end for end in range(2, 17) if sum(each.startswith(one[:end]) for each in ids) == 1)
    assert home.polypod("deny", f"{one[:enough]}…").code == 0
    assert {each["approval_id"] for each in waiting(home)} == set(ids) - {one}


async def pay(to: str) -> str:
    """Pay somebody."""
    return to


def test_an_answer_of_who_has_another_token_is_refused_and_says_so(shop: Home) -> None:
    with asking(shop) as run:
        asked = id_of(shop)
        own = shop.env["XDG_STATE_HOME"]
        for command in ("approve", "deny"):
            shop.env["XDG_STATE_HOME"] = str(shop.folder / "another")
            refused = shop.polypod(command, asked)
            assert refused.code == 2
            assert "a token other than the one in" in refused.err
        shop.env["XDG_STATE_HOME"] = own
        assert len(waiting(shop)) == 1
        assert shop.polypod("approve", asked).code == 0
        run.communicate(timeout=PATIENCE)
    assert paid(shop) == ["ann"]


@EACH_STORE
def test_the_token_is_in_no_answer_and_no_session(shop: Home) -> None:
    with asking(shop) as run:
        assert shop.polypod("approve", id_of(shop)).code == 0
        run.communicate(timeout=PATIENCE)
    token = (shop.state / "polypod" / "approval-token").read_bytes()
    for path in (each for each in shop.folder.rglob("*") if each.is_file()):
        kept = path.read_bytes()
        assert token not in kept
        assert token.hex().encode() not in kept


@pytest.mark.parametrize("through", [[], ["setsid", "-w"], ["sh", "-c", '"$@" & wait', "sh"]])
async def test_a_program_that_a_launcher_has_started_answers_nothing(
    tmp_path: Path, through: list[str]
) -> None:
    home = Home(tmp_path)
    home.write("shop.py", SHOP)
    home.write("clerk.toml", MANIFEST)
    launcher = Launcher()
    with asking(home):
        asked = id_of(home)
        for command in ("approve", "deny"):
            child = await launcher.start(
                [*through, *COMMAND, command, asked], cwd=home.folder, env=home.env, stderr="stdout"
            )
            said = b""
            while piece := await child.stdout.read(65536):
                said += piece
            await child.wait()
            assert b"only a person may answer" in said
        assert id_of(home) == asked
    await launcher.aclose()


ASKS_BY_A_FORM = '''
from polypod import ToolContext, tool

@tool
async def visit(ctx: ToolContext) -> str:
    """Visit a town that a person names."""
    town = {"type": "object", "properties": {"town": {"type": "string"}}}
    return str(await ctx.ask_person("which town?", town))
'''


@EACH_STORE
def test_a_question_by_a_form_is_gone_with_the_process_of_its_tool(shop: Home) -> None:
    shop.write("shop.py", ASKS_BY_A_FORM)
    with asking(shop, "use visit") as run:
        assert len(waiting(shop)) == 1
        run.kill()
        run.wait()
        assert waiting(shop) == []
        assert "waits for approval" not in shop.polypod("ps").out
