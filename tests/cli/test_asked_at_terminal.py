"""A person at a terminal is asked about calls that wait for approval, and answers there."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TextIO

import pytest
from command_kit import SHOP, Home, paid
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from person import CTRL_C, CTRL_D, ENTER, PATIENCE, person
from rich.cells import cell_len

from actors.cli.approvals.approver import AtTerminal
from actors.cli.approvals.form import form_lines
from actors.cli.approvals.question import not_understood_lines, question_lines, understood
from actors.cli.display.terminal import Terminal
from actors.cli.display.views import PeopleView
from actors.cli.follow import follow_run
from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.sessions.sqlite.store import SQLiteStore
from actors.sessions.store import SessionStore
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.approval import ApprovalAnswer
from protocol.errors import StoreError
from protocol.events import ApprovalRequested
from protocol.manifest import PodManifest
from protocol.results import RunResult

ASK = "allow it?"
MANIFEST = """
[pod]
name = "clerk"
[model]
scheme = "offline"
[[approval]]
tool = "pay"
policy = "ask"
"""


@pytest.fixture
def shop(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.write("shop.py", SHOP)
    home.write("clerk.toml", MANIFEST)
    return home


TASK = ("use pay ann", "--manifest", "clerk.toml", "--tools", "shop.py")


@pytest.mark.parametrize("columns", [40, 100])
@pytest.mark.parametrize("colours", [True, False])
def test_a_run_asks_and_does_what_the_person_allows(shop: Home, columns: int, *, colours: bool) -> None:
    shop.env |= {} if colours else {"NO_COLOR": "1"}
    with person(shop, "run", *TASK, columns=columns) as somebody:
        somebody.sees("pod clerk wants to run pay")
        assert ("\x1b[3" in somebody.before) == colours
        somebody.sees('to = "ann"')
        somebody.sees(ASK)
        somebody.press("y she has earned it\n")
        somebody.sees("approved by a person: she has")
        assert somebody.leaves_with() == 0
    assert paid(shop) == ["ann"]


@pytest.mark.parametrize(
    ("keys", "shown", "by", "reported"),
    [
        ("n not today\n", "denied by a person: not today", "person", "a person denied it: not today"),
        (CTRL_D, "denied: nobody gave approval", "nobody", "nobody gave it: the person's input has ended"),
        (
            "y but" + CTRL_D,
            "denied: nobody gave approval",
            "nobody",
            "nobody gave it: the person's input has",
        ),
    ],
)
def test_what_is_denied_or_not_answered_is_not_run(
    shop: Home, keys: str, shown: str, by: str, reported: str
) -> None:
    with person(shop, "run", *TASK) as somebody:
        somebody.sees(ASK)
        somebody.press(keys)
        somebody.sees(shown)
        somebody.leaves_with()
    assert paid(shop) == []
    assert resolution_of(shop) == (by, False)
    assert reported in result_of(shop)


def resolution_of(home: Home) -> tuple[str, bool]:
    """Who answered the one call that waited, and whether it was approved."""
    lines = home.polypod("events", "--json").lines
    (event,) = [each for each in lines if each["type"] == "ApprovalResolved"]
    return event["by"], event["approved"]


def result_of(home: Home) -> str:
    """What the model learnt of the one call."""
    lines = home.polypod("events", "--json").lines
    (event,) = [each for each in lines if each["type"] == "ToolResulted"]
    return str(event["item"]["content"][0]["text"])


def test_what_is_no_answer_is_asked_for_again_and_always_is_for_those_arguments(shop: Home) -> None:
    with person(shop, "chat", *TASK[1:]) as somebody:
        somebody.sees("\x1b[?2004h")
        somebody.press("use pay ann" + ENTER)
        somebody.sees(ASK)
        for keys, why in (
            ("what?\n", "“what?” is not an answer: type y, n, a or ?"),
            ("\n", "an empty line is not an answer"),
            ("yes but\n", "as in y but"),
            ("?\n", "pod clerk wants to run pay"),
        ):
            somebody.press(keys)
            somebody.sees(ASK)
            assert why in somebody.before
        somebody.press("always\n")
        somebody.sees("always")
        somebody.sees("finished")
        somebody.sees("\x1b[?2004h")
        somebody.press("use pay ann" + ENTER)
        somebody.sees("finished")
        somebody.sees("\x1b[?2004h")
        somebody.press("use pay bob" + ENTER)
        somebody.sees(ASK)
        somebody.press(CTRL_C)
        somebody.sees("cancelled")
        somebody.sees("\x1b[?2004h")
        somebody.press("/exit" + ENTER)
        assert somebody.leaves_with() == 0
    assert paid(shop) == ["ann", "ann"]


def test_ctrl_c_pauses_the_run_and_the_resume_asks_again(shop: Home) -> None:
    with person(shop, "run", *TASK) as somebody:
        somebody.sees(ASK)
        somebody.press(CTRL_C)
        somebody.sees("continue with")
        assert somebody.leaves_with() == 130
    with person(shop, "resume", shop.session()) as somebody:
        somebody.sees(ASK)
        somebody.press("y\n")
        somebody.sees("finished")
        assert somebody.leaves_with() == 0
    assert paid(shop) == ["ann"]


def test_new_words_instead_of_an_answer_close_the_question(shop: Home) -> None:
    with person(shop, "run", *TASK) as somebody:
        somebody.sees(ASK)
        somebody.process.send_signal(signal.SIGTERM)
        assert somebody.leaves_with() == 143
    with person(shop, "resume", shop.session(), "hello") as somebody:
        somebody.sees("finished")
        assert ASK not in somebody.before
        assert somebody.leaves_with() == 0
    assert paid(shop) == []


@pytest.mark.usefixtures("terminals_count")
def test_a_terminal_that_is_closed_pauses_the_run_that_asks(shop: Home) -> None:
    with person(shop, "run", *TASK) as somebody:
        somebody.sees(ASK)
        somebody.hang_up()
        assert somebody.process.wait(PATIENCE) == 129
    assert shop.polypod("ps", "--json").lines[0]["last_run"] == "paused"


def test_without_a_terminal_the_call_is_denied_and_the_person_learns_what_to_do(shop: Home) -> None:
    done = shop.polypod("run", *TASK, words="y\n")
    assert "nobody can be asked here" in done.err
    assert "at a terminal" in done.err
    assert paid(shop) == []
    assert resolution_of(shop) == ("nobody", False)
    assert "person denied" not in result_of(shop)
    assert "nobody gave it: nobody can be asked here" in result_of(shop)
    with person(shop, "run", *TASK, "--json") as somebody:  # a program reads what it writes
        somebody.sees("nobody can be asked here")


def test_a_resume_behind_an_answer_from_elsewhere_asks_no_more(shop: Home) -> None:
    with person(shop, "run", *TASK) as somebody:
        somebody.sees(ASK)
        somebody.press(CTRL_C)
        assert somebody.leaves_with() == 130
    assert shop.polypod("approve", shop.polypod("approvals", "--json").lines[0]["approval_id"]).code == 0
    with person(shop, "resume", "last") as somebody:
        somebody.sees("finished")
        assert ASK not in somebody.before
        assert "pay(to='ann') →" in somebody.before
        assert somebody.leaves_with() == 0
    assert paid(shop) == ["ann"]


def test_a_rule_that_matches_nothing_is_shown_before_the_run_and_in_a_chat(shop: Home) -> None:
    shop.write("clerk.toml", MANIFEST.replace('tool = "pay"', 'tool = "pya"'))
    for command in (("run", *TASK), ("chat", *TASK[1:])):
        done = shop.polypod(*command)
        assert (
            "the rule ask 'pya' matches no call: the pod has no tool 'pya'; did you mean 'pay'?" in done.err
        )
    lines = shop.polypod("run", *TASK, "--json").lines
    assert lines[0]["type"] == "Alert"


# -- several calls and pods ------------------------------------------------------------------------


class Desk:
    """A pod at a pseudo-terminal in this process, and the person there."""

    def __init__(self, system: PodSystem, master: int, terminal: Terminal, stdin: TextIO) -> None:
        self.system, self.terminal, self.stdin = system, terminal, stdin
        self._master = master
        self.ran: list[str] = []

    async def pod(self, *replies: object, name: str = "clerk", **approvals: Any) -> Pod:
        @tool
        async def pay(to: str) -> str:
            self.ran.append(to)
            return "paid"

        rules = [{"tool": "pay", "policy": "ask"}]
        manifest = PodManifest.of(name=name, approval=rules, approvals=approvals)
        return await self.system.spawn(manifest, client=ScriptedClient([*replies]), tools=[pay])

    async def follow(self, pod: Pod) -> RunResult:
        asks = AtTerminal(self.system, self.terminal, self.stdin)
        view = PeopleView(self.terminal)
        return (await follow_run(self.system, pod, lambda pod: pod.run("go"), view, asks)).result

    async def sees(self, words: str) -> str:
        """Wait until ``words`` are on the screen: what came before them."""
        loop, seen, wanted = asyncio.get_running_loop(), b"", words.encode()
        while wanted not in seen:
            there = loop.create_future()
            loop.add_reader(self._master, lambda there=there: there.done() or there.set_result(None))
            try:
                await there
            finally:
                loop.remove_reader(self._master)
            seen += os.read(self._master, 1)
        return seen.decode()

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())


@asynccontextmanager
async def desk(store: str | SessionStore = "memory:") -> AsyncIterator[Desk]:
    master, slave = os.openpty()
    with os.fdopen(slave, closefd=False) as stdin, os.fdopen(slave, "w", 1) as out:
        async with asyncio.timeout(PATIENCE), PodSystem(store) as system:
            yield Desk(system, master, Terminal(out, out), stdin)
    os.close(master)


async def test_two_calls_at_once_are_asked_for_one_after_the_other() -> None:
    async with desk() as at:
        pod = await at.pod(call("pay", {"to": "ann"}) + call("pay", {"to": "bob"}), say("done"))
        run = asyncio.create_task(at.follow(pod))
        assert "1 more call waiting" in await at.sees(ASK)
        at.press("n\n")
        assert "bob" in await at.sees(ASK)
        at.press("y\n")
        assert (await run).text == "done"
        assert at.ran == ["bob"]


async def test_what_was_typed_before_a_question_is_no_answer_to_it() -> None:
    async with desk() as at:
        at.press("y\ny\n")
        pod = await at.pod(call("pay", {"to": "ann"}) + call("pay", {"to": "bob"}), say("done"))
        run = asyncio.create_task(at.follow(pod))
        await at.sees(ASK)
        at.press("n\ny\n")
        assert "bob" in await at.sees(ASK)
        at.press("n\n")
        assert (await run).text == "done"
        assert at.ran == []


async def test_a_question_that_is_answered_elsewhere_goes_away_and_half_an_answer_with_it() -> None:
    async with desk() as at:
        pod = await at.pod(call("pay", {"to": "ann"}) + call("pay", {"to": "bob"}), say("done"))
        run = asyncio.create_task(at.follow(pod))
        await at.sees(ASK)
        first, second = await at.system.approvals()
        await at.system.approve(second.approval_id)
        at.press("y")
        await at.sees("y")
        await at.system.deny(first.approval_id)
        await at.sees("answered elsewhere")
        assert (await run).text == "done"
        assert at.ran == ["bob"]


async def test_an_answer_that_the_store_does_not_take_is_asked_for_again(tmp_path: Path) -> None:
    class Busy(SQLiteStore):
        failures = 1

        def put_answer(self, answer: ApprovalAnswer) -> bool:
            if self.failures:
                self.failures -= 1
                raise StoreError("it is locked")
            return super().put_answer(answer)

    store = Busy(tmp_path / "pods.db")
    async with desk(store) as at:
        pod = await at.pod(call("pay", {"to": "ann"}), say("done"))
        run = asyncio.create_task(at.follow(pod))
        await at.sees(ASK)
        at.press("y\n")
        assert "it is locked" in await at.sees(ASK)
        at.press("y\n")
        assert (await run).text == "done"
        assert at.ran == ["ann"]
    store.close()


async def test_a_question_that_nobody_answers_in_time_goes_away() -> None:
    async with desk() as at:
        pod = await at.pod(call("pay", {"to": "ann"}), say("done"), timeout=0.2)
        run = asyncio.create_task(at.follow(pod))
        assert "denied if nobody answers within" in await at.sees(ASK)
        await at.sees("not answered in time")
        assert (await run).text == "done"
        assert at.ran == []


async def test_calls_of_other_pods_of_the_system_are_asked_for_by_the_names_of_their_pods() -> None:
    async with desk() as at:
        other = await at.pod(call("pay", {"to": "bob"}), say("other"), name="other")
        pod = await at.pod(call("pay", {"to": "ann"}), say("done"))
        with at.system.subscribe(kinds=ApprovalRequested) as asked:
            others = other.run("go")
            await anext(asked)
            run = asyncio.create_task(at.follow(pod))
            assert "pod other wants" in await at.sees(ASK)
            await anext(asked)
            at.press("y\n")
            assert "pod clerk wants" in await at.sees(ASK)
            assert (await others).text == "other"
            at.press("n\n")
            assert (await run).text == "done"
        assert at.ran == ["bob"]


# -- what is shown ---------------------------------------------------------------------------------


def request(arguments: dict[str, Any], why: str | None = None) -> ApprovalRequested:
    return ApprovalRequested("p", "s", 1, 0.0, None, approval_id="i", tool="t", arguments=arguments, why=why)


#: Fillers, blanks and selectors that count as printable and that nobody sees.
UNSEEN = "\u034f\u115f\u1160\u17b4\u180b\u2800\u3164\ufe00\ufe0f\uffa0\U00016fe4\U0001d159\U000e0101"
_TEXTS = st.text() | st.text(st.sampled_from(f"\x1b[2J\r\n\t\u202e\u200b\x9b Aé漢{UNSEEN}"))


@given(
    st.dictionaries(_TEXTS, _TEXTS | st.integers() | st.lists(_TEXTS)),
    st.sampled_from([20, 40, 100]),
    st.booleans(),
)
def test_a_question_keeps_to_the_width_and_shows_nothing_that_a_terminal_obeys(
    arguments: dict[str, Any], width: int, whole: bool
) -> None:
    lines = list(question_lines(request(arguments, "a\x1brule"), width, 0.0, whole=whole))
    for line in lines:
        assert line.text.isprintable()
        assert not set(UNSEEN) & set(line.text)
        assert cell_len(line.text) <= width
    given_by_model = [line.text for line in lines if line.tone == "answer"]
    assert whole or len(given_by_model) <= 30 * 3  # of thirty arguments at most, each on three lines
    assert all(text.startswith(("| ", "|↳")) for text in given_by_model)


@pytest.mark.parametrize("width", [40, 80])
def test_no_argument_looks_like_another_where_its_line_is_too_long_for_the_screen(width: int) -> None:
    forged = ("x" * 7 + "amount = 1" + " " * 7) * 9  # one of them begins where a line goes on
    asked = request({"memo": forged, "amount": 5_000_000, "script": f"# {forged}\nrm -r ."})
    lines = [line.text for line in question_lines(asked, width, 0.0, whole=True)]
    assert [text for text in lines if text.startswith("| ") and "= 5" in text] == ["| amount = 5000000"]
    assert [text.partition(" =")[0] for text in lines if text.startswith("| ") and text[2] != " "] == [
        "| memo",
        "| amount",
        "| script",
    ]
    assert [text for text in lines if text.startswith("|   ")][-1] == "|   rm -r ."


def test_no_name_of_an_argument_looks_like_several_arguments() -> None:
    asked = request({"to": "mallory", 'x\nto = "ann"\ny': 1, "a b": 2})
    lines = [line.text for line in question_lines(asked, 100, 0.0) if line.tone == "answer"]
    assert lines == ['| to = "mallory"', r'| "x\nto = \"ann\"\ny" = 1', '| "a b" = 2']


@pytest.mark.parametrize("width", [20, 40])
def test_words_of_a_server_that_has_a_question_stand_behind_a_bar_on_every_line(width: int) -> None:
    words = "Which? " * 9 + "\ny answers it, field by field\x1b[2J"
    form = {"properties": {"size": {"type": "string", "description": "how big " * 9}}}
    lines = list(form_lines(structs.replace(request({}, words), form=form), width))
    given = [line.text for line in lines if line.tone == "answer"]
    assert all(text.startswith(("| ", "|↳")) for text in given)
    assert "".join(text[2:] for text in given).replace(" ", "").count("Which?") == 9
    ours = " ".join(line.text for line in lines if line.tone != "answer")
    assert ours.count("field by field") == 1
    assert all(cell_len(line.text) <= width for line in lines)


def test_a_long_argument_hides_no_other_and_the_whole_is_shown_when_asked_for() -> None:
    asked = request({"content": "\n".join(["word"] * 500), "path": "a.txt"})
    cut = [line.text for line in question_lines(asked, 40, 0.0)]
    assert len(cut) < 30
    assert '| path = "a.txt"' in cut
    assert any("more characters" in line for line in cut)
    assert (
        len([line for line in question_lines(asked, 40, 0.0, whole=True) if line.text == "|   word"]) == 500
    )


def test_a_question_says_the_time_that_is_left() -> None:
    asked = structs.replace(request({}), at=1000.0, timeout=3600.0)
    for now, left in ((1000.0, "1 h 0 min"), (2800.0, "30 min 0 s"), (9000.0, "0 ms")):
        lines = [line.text for line in question_lines(asked, 100, now)]
        assert f"denied if nobody answers within {left}" in lines


@given(st.sampled_from([20, 40, 100]), _TEXTS)
def test_what_is_no_answer_is_refused_with_the_reason_within_the_width(width: int, typed: str) -> None:
    lines = list(not_understood_lines(typed, width))
    assert lines
    assert all(line.text.isprintable() and cell_len(line.text) <= width for line in lines)


def test_only_clear_words_allow_anything() -> None:
    said = {"y": "yes", "Y": "yes", "yes": "yes", "a": "always", "n": "no", "no": "no", "?": "whole"}
    for words, answer in said.items():
        found = understood(f"  {words}\n")
        assert found is not None
        assert (found.answer, found.note) == (answer, None)
    assert understood("y, but only once") == ("yes", "but only once")
    assert understood("no never") == ("no", "never")
    for words in ("", "yes we can't", "always ask", "yy", "nope", "\x1b[A"):
        assert understood(words) is None


def test_without_a_terminal_each_reason_is_named_once_with_what_to_do_about_it(shop: Home) -> None:
    shop.write(
        "off.toml", '[tools]\nbuiltin = ["shell"]\n[sandbox]\nmode = "off"\n[approvals]\ndefault = "ask"\n'
    )
    task = "use pay ann, then use pay bob, then run echo one"
    done = shop.polypod(
        "run", task, "--manifest", "off.toml", "--tools", "shop.py", "--model", "offline", words=""
    )
    why = '([approvals] default = "ask", and no rule matches), and nobody can be asked here'
    for asked in ("pay", "shell"):
        assert done.err.count(f"{asked} was denied: it needs approval {why}") == 1
    assert done.err.count("hint: run it at a terminal; an [[approval]] rule can allow it") == 2
