"""A chain that does a task: tier by tier, with a verifier between, until an answer is accepted."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from routing.chain_kit import LARGE, SMALL, Doing, Hanging, HangingVerifier, Verdicts, chain_of
from warm import Popen

from actors.llm.retry import RetryPolicy
from polypod import (
    AllOf,
    AttemptRecord,
    ChainEntry,
    ChainExhausted,
    ChainInvalid,
    ChainRequest,
    ChainResult,
    CommandVerifier,
    EscalationChain,
    FunctionVerifier,
    ModelError,
    ModelVerifier,
    PolypodError,
    ScriptedClient,
    Usage,
    Verdict,
    entry_for,
    say,
)

TASK = ChainRequest("Count the words.", "You count.")
ONCE = RetryPolicy(attempts=1)
YES, NO = Verdict(accept=True), Verdict(accept=False, feedback="count again")


def down(words: str = "it is down") -> ModelError:
    return ModelError(words, kind="connection", where="127.0.0.1:1")


def outcomes(attempts: tuple[AttemptRecord, ...]) -> list[tuple[str, str, str]]:
    return [(each.model, each.verdict, each.feedback) for each in attempts]


# -- entries -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "tier", "cloud"),
    [
        ("claude-opus-5", "subagent", True),
        ("anthropic/claude-opus-5", "subagent", True),
        ("ollama/claude-like", "local", False),
        ("ollama/phi4", "local", False),
        ("phi4", "local", False),
        ("my-claude-copy", "local", False),
    ],
)
def test_where_a_model_is_follows_from_its_name_and_managed_never_does(model, tier, cloud):
    assert entry_for(model) == ChainEntry(model, tier, cloud)


def test_an_entry_is_local_unless_it_is_said_otherwise():
    assert ChainEntry("phi4") == ChainEntry("phi4", "local", is_cloud=False)
    chain = chain_of([], [], entries=[SMALL, ChainEntry("agent", "managed", is_cloud=True)])
    assert [each.tier for each in chain.entries] == ["local", "managed"]


# -- the way through the tiers -----------------------------------------------------------------------


async def test_the_first_answer_that_is_accepted_is_the_result_and_nobody_else_is_asked():
    chain = chain_of([say("12", input_tokens=5, output_tokens=2)], [], YES)
    result = await chain.run(TASK)
    assert (result.text, result.model, result.usage, result.cost) == ("12", "phi4", Usage(5, 2), 0.0)
    assert outcomes(result.attempts) == [(SMALL, "accept", "")]
    (attempt,) = result.attempts
    assert (attempt.tier, attempt.warm_start, attempt.usage, attempt.cost) == (
        "local",
        False,
        Usage(5, 2),
        0.0,
    )


async def test_a_rejected_answer_is_followed_by_the_next_tier_with_the_feedback():
    cloud = ScriptedClient([say("13")])
    verifier = Verdicts(NO)
    chain = EscalationChain([SMALL, LARGE], local=ScriptedClient([say("12")]), cloud=cloud, verifier=verifier)
    result = await chain.run(TASK)
    assert result.text == "13"
    assert outcomes(result.attempts) == [(SMALL, "escalate", "count again"), (LARGE, "accept", "")]
    (asked,) = cloud.requests
    assert asked.items[0].text == "Count the words.\n\nPrior attempt feedback: count again"
    assert (asked.system, asked.model) == ("You count.", LARGE)
    assert verifier.asked == [("You count.", "Count the words.", "12")]


async def test_feedback_accumulates_over_the_tiers():
    local = ScriptedClient([say("1"), say("2"), say("3")])
    chain = EscalationChain(["a", "b", "c"], local=local, verifier=Verdicts("not 1", "not 2", YES))
    assert (await chain.run(TASK)).text == "3"
    assert [each.items[0].text.removeprefix("Count the words.") for each in local.requests] == [
        "",
        "\n\nPrior attempt feedback: not 1",
        "\n\nPrior attempt feedback: not 1\n\nPrior attempt feedback: not 2",
    ]


async def test_a_cloud_tier_is_not_verified():
    verifier = Verdicts()
    chain = EscalationChain(
        [LARGE, SMALL], local=ScriptedClient([]), cloud=ScriptedClient([say("x")]), verifier=verifier
    )
    assert (await chain.run(TASK)).text == "x"
    assert verifier.asked == []


async def test_a_tier_that_fails_is_followed_by_the_next_with_the_same_prompt():
    cloud = ScriptedClient([say("13")])
    chain = EscalationChain([SMALL, LARGE], local=ScriptedClient([down()]), cloud=cloud, verifier=Verdicts())
    result = await chain.run(TASK)
    assert outcomes(result.attempts) == [(SMALL, "error", "it is down"), (LARGE, "accept", "")]
    assert cloud.requests[0].items[0].text == "Count the words."


async def test_a_verifier_that_fails_has_accepted_nothing_and_leaves_the_prompt_as_it_is():
    cloud = ScriptedClient([say("13")])
    chain = EscalationChain(
        [SMALL, LARGE], local=ScriptedClient([say("12")]), cloud=cloud, verifier=Verdicts(ValueError("odd"))
    )
    result = await chain.run(TASK)
    assert outcomes(result.attempts)[0] == (SMALL, "escalate", "verifier error: odd")
    assert cloud.requests[0].items[0].text == "Count the words."


@pytest.mark.parametrize("said", ["fine", 1, None, (1, "no bool"), Verdict(accept="no")])  # type: ignore[arg-type]
async def test_a_verdict_that_is_none_is_an_error_of_the_verifier(said: Any):
    chain = chain_of([say("12")], [say("13")], verifier=lambda *_: said)
    result = await chain.run(TASK)
    assert result.attempts[0].feedback.startswith("verifier error: a verifier returned ")
    assert "which is not a verdict" in result.attempts[0].feedback


@pytest.mark.parametrize("said", [(False, None), Verdict(accept=False, feedback=None)])  # type: ignore[arg-type]
async def test_a_verdict_without_words_has_no_feedback(said: Any):
    result = await chain_of([say("12")], [say("13")], verifier=lambda *_: said).run(TASK)
    assert outcomes(result.attempts)[0] == (SMALL, "escalate", "")


@pytest.mark.parametrize("error", [StopIteration, asyncio.CancelledError])
@pytest.mark.parametrize("blocking", [True, False])
async def test_what_a_verifier_raises_by_itself_is_its_error_whatever_that_is(
    error: type[BaseException], blocking: bool
):
    def verify(*_: str) -> bool:
        raise error

    verifier = FunctionVerifier(verify, blocking=blocking)
    result = await asyncio.wait_for(chain_of([say("12")], [say("13")], verifier=verifier).run(TASK), 30)
    assert result.text == "13"
    assert error.__name__ in result.attempts[0].feedback


async def test_a_tier_whose_client_cancels_itself_is_followed_by_the_next():
    cloud = ScriptedClient([say("13")])
    local = Doing(lambda _: asyncio.CancelledError())
    result = await EscalationChain([SMALL, LARGE], local=local, cloud=cloud, verifier=Verdicts()).run(TASK)
    assert outcomes(result.attempts)[0] == (SMALL, "error", "CancelledError()")


async def test_a_chain_that_is_exhausted_says_so_with_the_number_of_its_attempts():
    chain = chain_of([say("12"), say("12, again")], [], NO, "still wrong", entries=["a", "b"])
    with pytest.raises(ChainExhausted, match=r"all tiers exhausted after 2 attempt\(s\)") as caught:
        await chain.run(TASK)
    assert outcomes(caught.value.attempts) == [
        ("a", "escalate", "count again"),
        ("b", "escalate", "still wrong"),
    ]
    assert caught.value.retryable is False


async def test_a_chain_stands_wherever_its_parts_do():
    inner = chain_of([say("bad"), say("good")], [], NO, YES, entries=["phi4", "qwen3"])
    outer = EscalationChain(["team", LARGE], local=inner, cloud=ScriptedClient([]), verifier=Verdicts(YES))
    result = await outer.run(TASK)
    assert (result.text, result.model) == ("good", "qwen3")
    assert outcomes(result.attempts) == [
        ("phi4", "escalate", "count again"),
        ("qwen3", "accept", ""),
        ("team", "accept", ""),
    ]


async def test_who_does_tasks_by_itself_is_a_tier_too():
    local = Doing(lambda request: "12")
    cloud = Doing(lambda request: ChainResult("13", "its own", Usage(3, 4), 0.25))
    chain = EscalationChain([SMALL, LARGE], local=local, cloud=cloud, verifier=Verdicts(NO))
    result = await chain.run(TASK)
    assert (result.text, result.model, result.usage, result.cost) == (
        "13",
        "its own",
        Usage(3, 4),
        0.25,
    )
    assert local.asked == [ChainRequest("Count the words.", "You count.", "phi4")]
    assert cloud.asked[0].task_prompt == "Count the words.\n\nPrior attempt feedback: count again"


@pytest.mark.parametrize("done", [None, 5, SimpleNamespace(text=None)])
async def test_who_gives_no_text_has_failed(done: Any):
    chain = EscalationChain([SMALL], local=Doing(lambda _: done), verifier=lambda *_: True)
    with pytest.raises(ChainExhausted, match="which has no text"):
        await chain.run(TASK)


@pytest.mark.parametrize("cost", ["much", -1.0, float("nan"), None])
async def test_a_cost_that_cannot_be_is_none(cost: Any):
    done = SimpleNamespace(text="12", cost=cost, usage="some", model=7)
    result = await EscalationChain([LARGE], cloud=Doing(lambda _: done)).run(TASK)
    assert (result.text, result.usage, result.cost, result.model) == ("12", None, None, LARGE)


async def test_each_model_may_have_a_client_of_its_own():
    a, b = ScriptedClient([say("1")]), ScriptedClient([say("2")])
    chain = EscalationChain(["a", "b"], local={"a": a, "b": b}, verifier=Verdicts(NO, YES))
    assert (await chain.run(TASK)).text == "2"
    assert (len(a.requests), len(b.requests)) == (1, 1)


async def test_every_call_is_counted_at_its_own_price_and_of_a_verifier_too():
    judge = ModelVerifier(
        ScriptedClient([say('{"accept": false, "feedback": "no"}', input_tokens=100, output_tokens=10)]),
        "It is right.",
        model="anthropic/claude-haiku-4-5",
    )
    chain = chain_of(
        [say("12", input_tokens=1000, output_tokens=100)],
        [say("13", input_tokens=1000, output_tokens=100)],
        verifier=judge,
    )
    result = await chain.run(TASK)
    assert result.usage == Usage(2100, 210)
    assert [each.cost for each in result.attempts] == [0.0, pytest.approx(0.0075)]
    assert result.cost == pytest.approx(0.0075 + 0.00015)
    assert chain.prices_of == (SMALL, "anthropic/claude-opus-5", "anthropic/claude-haiku-4-5")


async def test_a_tier_has_the_time_that_its_entry_gives_it():
    local = Hanging()
    entries = [ChainEntry(SMALL, timeout=0.05), entry_for(LARGE)]
    chain = EscalationChain(entries, local=local, cloud=ScriptedClient([say("13")]), verifier=Verdicts())
    result = await chain.run(TASK)
    assert outcomes(result.attempts) == [(SMALL, "error", "no answer within 0.05 s"), (LARGE, "accept", "")]
    assert local.cancelled.is_set()


async def test_a_verifier_that_hangs_is_cancelled_and_has_accepted_nothing():
    verifier = HangingVerifier()
    chain = chain_of([say("12")], [say("13")], verifier=verifier, verify_timeout=0.05)
    result = await chain.run(TASK)
    assert outcomes(result.attempts)[0] == (SMALL, "escalate", "verifier error: no verdict within 0.05 s")
    assert verifier.cancelled.is_set()


async def test_the_last_tier_is_asked_again_where_its_server_wants_that_and_no_other_is():
    local, cloud = ScriptedClient([down()]), ScriptedClient([down(), down(), say("13")])
    chain = EscalationChain(
        [SMALL, LARGE], local=local, cloud=cloud, verifier=Verdicts(), retry=RetryPolicy(base=0.0)
    )
    assert (await chain.run(TASK)).text == "13"
    assert (len(local.requests), len(cloud.requests)) == (1, 3)


# -- what an earlier system did wrong ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "given", "words"),
    [
        ([], {}, "a chain needs at least one tier"),
        ([SMALL], {"verifier": Verdicts()}, "ollama/phi4 has no client: the chain has no local"),
        ([LARGE], {}, "claude-opus-5 has no client: the chain has no cloud"),
        ([SMALL], {"local": ScriptedClient([])}, "the answers of ollama/phi4 cannot be verified"),
        ([SMALL], {"local": 5, "verifier": Verdicts()}, "local=5 cannot run tasks"),
        ([SMALL], {"local": {"other": ScriptedClient([])}, "verifier": Verdicts()}, "has no client"),
        ([5], {}, "5 is not a tier"),
        ([" "], {"local": ScriptedClient([]), "verifier": Verdicts()}, "empty model name"),
        ([ChainEntry("a", timeout=0)], {}, "timeout: expected more than 0 seconds"),
        ([LARGE], {"cloud": ScriptedClient([]), "tools": "some"}, "tools='some'"),
        ([LARGE], {"cloud": ScriptedClient([]), "verify_timeout": 0}, "verify_timeout"),
        ([LARGE], {"cloud": ScriptedClient([]), "warm_url": "ftp://x"}, "warm_url"),
        ([SMALL], {"local": ScriptedClient([]), "verifier": 5}, "5 is not a verifier"),
    ],
)
def test_bug_a_missing_run_function_or_verifier_crashes_instead_it_is_refused_at_construction(
    entries, given, words
):
    with pytest.raises(ChainInvalid, match=words):
        EscalationChain(entries, **given)


def test_bug_an_empty_chain_says_0_attempts_instead_it_is_refused():
    with pytest.raises(ChainInvalid, match="at least one tier"):
        EscalationChain([], local=ScriptedClient([]))


def test_a_chain_of_cloud_tiers_needs_no_verifier_and_no_local():
    assert repr(EscalationChain([LARGE], cloud=ScriptedClient([]))) == "<EscalationChain claude-opus-5>"


async def test_bug_cloud_failure_text_is_not_recorded_and_the_final_error_names_no_cause():
    chain = chain_of([down("phi is down")], [down("no route to the cloud")], retry=ONCE)
    with pytest.raises(ChainExhausted) as caught:
        await chain.run(TASK)
    error = caught.value
    assert outcomes(error.attempts) == [
        (SMALL, "error", "phi is down"),
        (LARGE, "error", "no route to the cloud"),
    ]
    assert error.errors == ((SMALL, "phi is down"), (LARGE, "no route to the cloud"))
    assert str(error) == (
        "all tiers exhausted after 2 attempt(s): ollama/phi4: phi is down; claude-opus-5: no route to the cloud"
    )
    assert (error.kind, error.where) == ("connection", "127.0.0.1:1")


async def test_bug_a_cancelled_run_still_walks_every_tier():
    local, cloud = Hanging(), ScriptedClient([say("13")])
    chain = EscalationChain([SMALL, LARGE], local=local, cloud=cloud, verifier=Verdicts())
    running = asyncio.ensure_future(chain.run(TASK))
    await local.asked.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert cloud.requests == []


async def test_a_client_that_makes_an_error_of_its_cancel_does_not_have_the_next_tier_asked():
    class Converting:
        def __init__(self) -> None:
            self.asked = asyncio.Event()

        async def stream(self, _):
            self.asked.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise down("cancelled") from None
            yield

    local, cloud = Converting(), ScriptedClient([say("13")])
    chain = EscalationChain([SMALL, LARGE], local=local, cloud=cloud, verifier=Verdicts())
    running = asyncio.ensure_future(chain.run(TASK))
    await local.asked.wait()
    running.cancel()
    with pytest.raises((asyncio.CancelledError, ModelError)):
        await running
    assert cloud.requests == []


async def test_bug_duration_excludes_verification():
    async def slow(*_: str) -> bool:
        await asyncio.sleep(0.03)
        return True

    result = await chain_of([say("12")], verifier=slow).run(TASK)
    assert result.attempts[0].duration_ms >= 30


async def test_bug_empty_feedback_adds_a_dangling_line():
    cloud = ScriptedClient([say("13")])
    chain = EscalationChain(
        [SMALL, LARGE], local=ScriptedClient([say("12")]), cloud=cloud, verifier=lambda *_: False
    )
    await chain.run(TASK)
    assert cloud.requests[0].items[0].text == "Count the words."


async def test_bug_the_verifier_judges_against_a_prompt_that_already_contains_old_feedback():
    verifier = Verdicts("not 1", "not 2", YES)
    chain = EscalationChain(
        ["a", "b", "c"], local=ScriptedClient([say("1"), say("2"), say("3")]), verifier=verifier
    )
    await chain.run(TASK)
    assert [task for _, task, _ in verifier.asked] == ["Count the words."] * 3


async def test_bug_the_best_rejected_output_is_thrown_away():
    chain = chain_of([say("nearly right")], [down()], NO, retry=ONCE)
    with pytest.raises(ChainExhausted) as caught:
        await chain.run(TASK)
    assert caught.value.best == "nearly right"


async def test_bug_attempts_is_appended_without_a_lock_so_runs_at_once_mix_theirs():
    replies = [say(str(number)) for number in range(40)]
    chain = chain_of(replies, [say("x")] * 20, *([NO] * 20))
    done = await asyncio.gather(*(chain.run(TASK) for _ in range(20)))
    assert all(len(each.attempts) == 2 for each in done)


def test_bug_anthropic_claude_counts_as_local():
    assert entry_for("anthropic/claude-opus-5").is_cloud


# -- answers that no verifier need look at -----------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "feedback"),
    [
        (say(" \n"), "The answer was empty."),
        (say("ha", stop_reason="max_tokens"), "The answer was cut off: it must be shorter."),
        (say("no", stop_reason="refusal"), "The model refused the task."),
    ],
)
async def test_an_answer_that_is_none_is_rejected_without_asking_the_verifier(reply, feedback):
    verifier = Verdicts()
    result = await chain_of([reply], [say("13")], verifier=verifier).run(TASK)
    assert (result.attempts[0].feedback, verifier.asked) == (feedback, [])


async def test_what_is_kept_of_feedback_is_bounded_and_holds_no_key():
    key = "sk-ant-api03-" + "Ab1" * 20
    result = await chain_of([say("12")], [say("13")], f"{key} " + "x" * 10_000).run(TASK)
    assert len(result.attempts[0].feedback) <= 4000
    assert key not in result.attempts[0].feedback


# -- the verifiers that come with it -----------------------------------------------------------------


async def test_a_function_may_be_plain_and_then_runs_in_a_thread():
    def slow(skill: str, task: str, output: str) -> tuple[bool, str]:
        time.sleep(0.01)
        return output == "12", f"{skill} {task}"

    assert await FunctionVerifier(slow).verify("s", "t", "12") == Verdict(accept=True, feedback="s t")
    assert await FunctionVerifier(lambda *_: False, blocking=False).verify("s", "t", "x") == Verdict(
        accept=False
    )


HANGS = """
import asyncio, threading
from polypod import ChainRequest, EscalationChain, ScriptedClient, say
hang = lambda *_: threading.Event().wait()
chain = EscalationChain(
    ["a", "claude-b"], local=ScriptedClient([say("12")]), cloud=ScriptedClient([say("13")]), verifier=hang,
    verify_timeout=0.05,
)
print(asyncio.run(chain.run(ChainRequest("Count."))).text)
"""


def test_a_function_that_hangs_keeps_no_process_from_ending(tmp_path: Path):
    program = tmp_path / "hangs.py"
    program.write_text(HANGS)
    process = Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.communicate(timeout=30)[0] == "13\n"
    finally:
        process.kill()


async def test_all_of_them_stop_at_the_first_that_rejects():
    first, second, third = Verdicts(YES, YES), Verdicts(NO, YES), Verdicts(YES)
    every = AllOf(first, second, third)
    assert await every.verify("", "t", "o") == NO
    assert third.asked == []
    assert (await every.verify("", "t", "o")).accept
    with pytest.raises(ChainInvalid, match="at least one"):
        AllOf()


async def test_a_list_of_verifiers_is_all_of_them():
    chain = chain_of([say("12")], [say("13")], verifier=[Verdicts(YES), lambda *_: (False, "short")])
    assert (await chain.run(TASK)).attempts[0].feedback == "short"


async def test_a_model_judges_by_a_rubric_what_stands_between_marks_that_no_answer_knows():
    judge = ScriptedClient([say('{"accept": true, "feedback": ""}', input_tokens=9, output_tokens=4)])
    said = await ModelVerifier(judge, "No rhymes.", model="ollama/judge").verify(
        "Be brief.", "Write.", "=== x"
    )
    assert said == Verdict(accept=True, usage=Usage(9, 4), cost=0.0)
    (asked,) = judge.requests
    assert "No rhymes." in asked.system
    mark = asked.items[0].text.split("The answer:\n\n")[1].split("\n")[0]
    assert mark.startswith("=== ")
    assert mark in asked.system
    assert asked.items[0].text.count(mark) == 2
    assert asked.output_schema is not None
    assert asked.model == "judge"


async def test_a_judge_that_gives_no_verdict_has_accepted_nothing():
    chain = chain_of(
        [say("12")], [say("13")], verifier=ModelVerifier(ScriptedClient([say("Looks good!")]), "r")
    )
    result = await chain.run(TASK)
    assert result.attempts[0].verdict == "escalate"
    assert "verifier error" in result.attempts[0].feedback


@pytest.mark.parametrize(
    "made", [lambda: ModelVerifier(5, "r"), lambda: ModelVerifier(ScriptedClient([]), " ")]
)
def test_a_model_verifier_that_could_not_work_is_refused(made):
    with pytest.raises(ChainInvalid):
        made()


async def test_a_command_accepts_by_its_exit_code_and_reads_the_answer(tmp_path):
    async with CommandVerifier(["grep", "-q", "12"], cwd=tmp_path) as command:
        assert await command.verify("", "t", "it is 12") == Verdict(accept=True)
        assert await command.verify("", "t", "it is 13") == Verdict(accept=False)


async def test_what_a_command_writes_last_is_the_feedback():
    script = (
        "echo start; head -c 100000 /dev/zero | tr '\\0' x; echo; echo 'two words are missing' >&2; exit 3"
    )
    async with CommandVerifier(["sh", "-c", script]) as command:
        said = await command.verify("", "t", "o" * 1_000_000)
    assert not said.accept
    assert said.feedback.endswith("two words are missing")
    assert len(said.feedback) <= 4096


async def test_what_a_command_writes_last_is_the_feedback_however_much_came_before():
    script = "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo 'two words are missing'; exit 3"
    async with CommandVerifier(["sh", "-c", script]) as command:
        assert (await command.verify("", "t", "o")).feedback.endswith("\ntwo words are missing")


async def test_a_command_that_hangs_is_ended_with_all_it_started(tmp_path):
    pid = tmp_path / "pid"
    async with CommandVerifier(["sh", "-c", f"sleep 100 & echo $! > {pid}; wait"], timeout=0.5) as command:
        with pytest.raises(PolypodError, match=r"did not end within 0\.5 s"):
            await command.verify("", "t", "o")
    assert not _lives(int(pid.read_text()))


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_command_that_is_not_there_or_was_killed_is_an_error_of_the_verifier():
    async with CommandVerifier(["/no/such/program"]) as command:
        result = await chain_of([say("12")], [say("13")], verifier=command).run(TASK)
    assert "verifier error: cannot start /no/such/program" in result.attempts[0].feedback
    async with CommandVerifier(["sh", "-c", "kill -9 $$"]) as command:
        with pytest.raises(PolypodError, match="signal 9"):
            await command.verify("", "t", "o")


async def test_a_chain_that_is_cancelled_ends_its_command(tmp_path):
    ready = tmp_path / "pid"
    async with CommandVerifier(
        ["sh", "-c", f"echo $$ > {ready}.new; mv {ready}.new {ready}; sleep 100"]
    ) as command:
        running = asyncio.ensure_future(chain_of([say("12")], [say("13")], verifier=command).run(TASK))
        async with asyncio.timeout(60):
            while not ready.exists():  # noqa: ASYNC110 - a file that another process makes
                await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert not _lives(int(ready.read_text()))


@pytest.mark.parametrize("made", [lambda: CommandVerifier([]), lambda: CommandVerifier(["true"], timeout=0)])
def test_a_command_verifier_that_could_not_work_is_refused(made):
    with pytest.raises(ChainInvalid):
        made()
