"""A pod whose model is a chain: what is shown, what is recorded and paid, which tools its tiers have."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from routing.chain_kit import LARGE, SMALL, Breaking, Hanging, HangingVerifier, Verdicts, chain_of

from actors.llm.base import Assembler, CallChunk, CallEnd, CallStart, ThinkingChunk
from actors.llm.retry import RetryPolicy
from actors.llm.scripted import Reply
from polypod import (
    AssistantMessage,
    AttemptFailed,
    BudgetError,
    BudgetExceeded,
    CassetteClient,
    ChainEntry,
    ChainExhausted,
    CompactDone,
    EscalationChain,
    Event,
    ModelError,
    ModelVerifier,
    Pod,
    PodManifest,
    PodSystem,
    Request,
    Retry,
    RunFailed,
    RunResult,
    ScriptedClient,
    StreamRestart,
    TextDelta,
    TierAttempted,
    ToolSpec,
    Usage,
    UserItem,
    Verdict,
    call,
    entry_for,
    say,
    tool,
)

YES, NO = Verdict(accept=True), Verdict(accept=False, feedback="count again")
PLAIN = PodManifest.of(name="p")


def down(kind: Any = "connection") -> ModelError:
    return ModelError("it is down", kind=kind, where="127.0.0.1:1")


@tool(concurrency="read_only", blocking=False)
def look(word: str) -> str:
    """Look a word up."""
    return f"{word} is a word"


class Effects:
    """A tool that leaves something behind."""

    def __init__(self) -> None:
        self.written: list[str] = []

        @tool(blocking=False)
        def write(word: str) -> str:
            """Write a word down."""
            self.written.append(word)
            return "written"

        self.tool = write


async def played(
    chain: EscalationChain, *, tools: Any = (), manifest: PodManifest = PLAIN
) -> tuple[RunResult, list[Event], Any]:
    """The result of a run, its events, and what the pod says of itself then."""
    async with PodSystem() as system:
        pod = await system.spawn(manifest, client=chain, tools=tools)
        with system.subscribe() as events:
            result = await pod.run("Count.")
            return result, events.drain(), await pod.describe()


def of(kind: type[Any], events: list[Event]) -> list[Any]:
    return [each for each in events if isinstance(each, kind)]


# -- what is shown -----------------------------------------------------------------------------------


async def test_a_rejected_tiers_text_is_never_shown():
    chain = chain_of([say("WRONG", chunks=5)], [say("right", chunks=5)], NO)
    result, events, _ = await played(chain)
    assert result.text == "right"
    assert "".join(each.text for each in of(TextDelta, events)) == "right"
    assert not of(StreamRestart, events)
    assert [each.item.text for each in of(AssistantMessage, events)] == ["right"]


async def test_an_accepted_tier_is_shown_in_its_pieces_once_it_is_accepted():
    result, events, _ = await played(chain_of([say("a b c d", chunks=4)], [], YES))
    assert result.text == "a b c d"
    assert len(of(TextDelta, events)) == 4


async def test_a_cloud_tier_is_shown_as_it_comes():
    cloud = Hanging("first words")
    chain = EscalationChain(
        [SMALL, LARGE], local=ScriptedClient([say("x")]), cloud=cloud, verifier=Verdicts(NO)
    )
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=chain)
        with system.subscribe(kinds=[TextDelta]) as events:
            run = pod.run("Count.")
            assert (await anext(aiter(events))).text == "first words"
            await pod.cancel()
            await run


async def test_words_beside_the_calls_of_a_verified_tier_are_not_shown_either():
    local = [say("SURELY 12") + call("look", {"word": "x"}), say("12")]
    result, events, _ = await played(chain_of(local, [], YES), tools=[look])
    assert result.text == "12"
    assert "SURELY" not in repr(events)


# -- what is recorded and paid -----------------------------------------------------------------------


async def test_what_came_of_each_tier_is_a_durable_event_before_the_next_is_asked():
    seen: list[int] = []

    class Cloud:
        async def stream(self, request: Request) -> Any:
            seen.append(len(events.drain()))
            async for block in say("13").stream():
                yield block

    chain = EscalationChain(
        [SMALL, LARGE], local=ScriptedClient([say("12")]), cloud=Cloud(), verifier=Verdicts(NO)
    )
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=chain)
        with system.subscribe(kinds=[TierAttempted]) as events:
            await pod.run("Count.")
            assert seen == [1]
        with system.subscribe(pod=pod.name, since=0, kinds=[TierAttempted]) as replayed:
            assert [each.attempt.verdict for each in replayed.drain()] == ["escalate", "accept"]


async def test_each_tiers_cost_is_counted_once_by_its_own_price_and_all_of_it_is_the_pods():
    judge = ModelVerifier(
        ScriptedClient([say('{"accept": false, "feedback": "no"}', input_tokens=100, output_tokens=10)]),
        "It is right.",
        model="anthropic/claude-haiku-4-5",
    )
    local, cloud = (
        say("12", input_tokens=1000, output_tokens=100),
        say("13", input_tokens=1000, output_tokens=100),
    )
    result, events, described = await played(chain_of([local], [cloud], verifier=judge))
    small, large = of(TierAttempted, events)
    assert (small.attempt.usage, small.attempt.cost) == (Usage(1000, 100), 0.0)
    assert (small.usage, small.cost) == (Usage(1100, 110), pytest.approx(0.00015))
    assert (large.attempt.usage, large.attempt.cost) == (Usage(1000, 100), pytest.approx(0.0075))
    assert (large.usage, large.cost) == (None, None)
    (answer,) = of(AssistantMessage, events)
    assert (answer.usage, answer.cost, answer.model) == (Usage(1000, 100), pytest.approx(0.0075), LARGE)
    assert (described.usage, described.cost) == (Usage(2100, 210), pytest.approx(0.00765))
    assert result.usage == Usage(2100, 210)


async def test_occupancy_is_the_accepted_tiers_input_alone():
    chain = chain_of(
        [say("12", input_tokens=9000, output_tokens=100)], [say("13", input_tokens=500, output_tokens=2)], NO
    )
    _, _, described = await played(chain)
    assert 500 <= described.occupancy < 600


async def test_what_a_restored_pod_has_taken_is_what_it_had(tmp_path):
    chain = chain_of(
        [say("12", input_tokens=10, output_tokens=1)], [say("13", input_tokens=20, output_tokens=2)], NO
    )
    async with PodSystem(f"sqlite:{tmp_path}/pods.db") as system:
        pod = await system.spawn(PLAIN, client=chain)
        await pod.run("Count.")
        before = await pod.describe()
        await pod.stop()
        again = await system.spawn(PLAIN, client=chain, resume=before.session_id)
        after = await again.describe()
    assert (after.usage, after.cost, after.occupancy) == (before.usage, before.cost, before.occupancy)
    assert before.usage == Usage(30, 3)


async def test_a_chain_within_a_chain_is_paid_once():
    inner = chain_of(
        [say("1", input_tokens=10, output_tokens=1), say("2", input_tokens=20, output_tokens=2)],
        [], NO, YES, entries=["a", "b"],
    )  # fmt: skip
    outer = EscalationChain(
        ["team", LARGE],
        local=inner,
        cloud=ScriptedClient([say("3", input_tokens=40, output_tokens=4)]),
        verifier=Verdicts(NO),
    )
    _, events, described = await played(outer)
    assert [(each.attempt.model, each.usage) for each in of(TierAttempted, events)] == [
        ("a", Usage(10, 1)),
        ("b", None),
        ("team", Usage(20, 2)),
        (LARGE, None),
    ]
    assert described.usage == Usage(70, 7)


async def test_an_event_of_a_tier_reads_back_and_an_old_log_reads_on():
    _, events, _ = await played(chain_of([say("12")], [say("13")], NO))
    event = of(TierAttempted, events)[0]
    assert msgspec.json.decode(msgspec.json.encode(event), type=TierAttempted) == event
    bare = msgspec.json.decode(
        b'{"type":"TierAttempted","pod":"p","session_id":"s","seq":3,"at":1.0,'
        b'"attempt":{"model":"m","tier":"local","duration_ms":1,"warm_start":false,"verdict":"error"}}',
        type=TierAttempted,
    )
    assert bare.attempt.feedback == ""


# -- the budget --------------------------------------------------------------------------------------


async def test_the_budget_is_asked_before_each_tier():
    cloud = ScriptedClient([say("13")])
    chain = EscalationChain(
        [SMALL, LARGE],
        local=ScriptedClient([say("12", input_tokens=900, output_tokens=50)]),
        cloud=cloud,
        verifier=Verdicts(NO),
    )
    manifest = PodManifest.of(name="p", budget={"tokens": 1000}, max_tokens=80)
    result, events, described = await played(chain, manifest=manifest)
    assert result.outcome == "budget"
    assert cloud.requests == []
    assert [each.budget for each in of(BudgetExceeded, events)] == ["tokens"]
    assert described.usage == Usage(900, 50)


async def test_the_budget_is_asked_before_each_verifier():
    judge = ScriptedClient([])
    chain = chain_of(
        [say("12", input_tokens=990, output_tokens=50)],
        [],
        verifier=ModelVerifier(judge, "It is right.", model="ollama/judge"),
    )
    manifest = PodManifest.of(name="p", budget={"tokens": 1000}, max_tokens=80)
    result, events, described = await played(chain, manifest=manifest)
    assert (result.outcome, judge.requests) == ("budget", [])
    assert described.usage == Usage(990, 50)
    assert [each.usage for each in of(AttemptFailed, events)] == [Usage(990, 50)]


async def test_a_budget_in_dollars_is_refused_where_nobody_knows_what_a_tier_costs():
    chain = EscalationChain(
        [SMALL, ChainEntry("openai/gpt-unknown", "subagent", is_cloud=True)],
        local=ScriptedClient([]),
        cloud=ScriptedClient([]),
        verifier=Verdicts(),
    )
    async with PodSystem() as system:
        with pytest.raises(BudgetError, match="the price of the model openai/gpt-unknown"):
            await system.spawn(PodManifest.of(name="p", budget={"cost_usd": 1.0}), client=chain)
        await system.spawn(PodManifest.of(name="p", budget={"cost_usd": 1.0}), client=chain_of([], []))


async def test_a_local_tier_takes_nothing_of_a_budget_in_dollars_and_the_cloud_its_price():
    chain = chain_of(
        [say("12", input_tokens=100_000, output_tokens=10)],
        [say("13", input_tokens=100, output_tokens=10)],
        NO,
    )
    manifest = PodManifest.of(name="p", budget={"cost_usd": 0.01}, max_tokens=10)
    result, _, described = await played(chain, manifest=manifest)
    assert (result.outcome, described.cost) == ("finished", pytest.approx(0.00075))


# -- tools -------------------------------------------------------------------------------------------


async def test_a_verified_tier_is_offered_only_tools_that_read():
    effects = Effects()
    local = ScriptedClient([say("12")])
    cloud = ScriptedClient([call("write", {"word": "x"}), say("13")])
    chain = EscalationChain([SMALL, LARGE], local=local, cloud=cloud, verifier=Verdicts(NO))
    result, _, _ = await played(chain, tools=[look, effects.tool])
    assert [each.name for each in local.requests[0].tools] == ["look"]
    assert [each.name for each in cloud.requests[0].tools] == ["look", "write"]
    assert (result.text, effects.written) == ("13", ["x"])


@pytest.mark.parametrize(("rule", "names"), [("all", ["look", "write"]), ("none", [])])
async def test_which_tools_it_is_offered_can_be_said(rule, names):
    local = ScriptedClient([say("12")])
    chain = EscalationChain([SMALL], local=local, verifier=Verdicts(YES), tools=rule)
    await played(chain, tools=[look, Effects().tool])
    assert [each.name for each in local.requests[0].tools] == names


async def test_a_tool_that_a_tier_calls_though_it_was_not_offered_never_runs():
    effects = Effects()
    chain = chain_of([call("write", {"word": "rm"})], [say("13")])
    result, events, _ = await played(chain, tools=[look, effects.tool])
    assert (result.text, effects.written) == ("13", [])
    assert "write, a tool that it does not have" in of(TierAttempted, events)[0].attempt.feedback


async def test_a_tool_loop_stays_on_its_tier_and_only_its_last_answer_is_verified():
    verifier = Verdicts(NO)
    local = ScriptedClient([call("look", {"word": "a"}), call("look", {"word": "b"}), say("12")])
    cloud = ScriptedClient([call("look", {"word": "c"}), call("look", {"word": "d"}), say("13")])
    chain = EscalationChain([SMALL, LARGE], local=local, cloud=cloud, verifier=verifier)
    result, events, _ = await played(chain, tools=[look])
    assert result.text == "13"
    assert (len(local.requests), len(cloud.requests)) == (3, 3)
    assert verifier.asked == [("", "Count.", "12")]
    assert [each.item.tier for each in of(AssistantMessage, events)] == [SMALL, SMALL, LARGE, LARGE, LARGE]
    # The feedback stands at the same place in each of the later tier's requests, so its prefix is the same.
    assert {each.items[0].text for each in cloud.requests} == {
        "Count.\n\nPrior attempt feedback: count again"
    }


async def test_a_steered_tool_loop_stays_on_its_tier():
    asked, go_on = asyncio.Event(), asyncio.Event()

    @tool(name="wait")
    async def wait() -> str:
        """Wait."""
        asked.set()
        await go_on.wait()
        return "done"

    local = ScriptedClient([say("12")])
    cloud = ScriptedClient([call("wait"), say("13")])
    chain = EscalationChain([SMALL, LARGE], local=local, cloud=cloud, verifier=Verdicts(NO))
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=chain, tools=[wait])
        run = pod.run("Count.")
        await asked.wait()
        steered = pod.steer("Count the commas too.")
        go_on.set()
        await steered
        assert (await run).text == "13"
    assert (len(local.requests), len(cloud.requests)) == (1, 2)
    assert cloud.requests[1].items[-1].text == "Count the commas too."


async def test_the_next_task_begins_with_the_first_tier_again():
    local, cloud = ScriptedClient([say("12"), say("1")]), ScriptedClient([say("13")])
    chain = EscalationChain([SMALL, LARGE], local=local, cloud=cloud, verifier=Verdicts(NO, YES))
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=chain)
        assert (await pod.run("Count.")).text == "13"
        assert (await pod.run("And now?")).text == "1"
    assert [each.text for each in local.requests[1].items] == ["Count.", "13", "And now?"]


async def test_a_task_after_a_tool_loop_that_was_cancelled_begins_with_the_first_tier():
    asked = asyncio.Event()

    @tool(name="wait")
    async def wait() -> str:
        """Wait."""
        asked.set()
        await asyncio.Event().wait()
        return ""

    local, cloud = ScriptedClient([say("12"), say("1")]), ScriptedClient([call("wait")])
    chain = EscalationChain([SMALL, LARGE], local=local, cloud=cloud, verifier=Verdicts(NO, YES))
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=chain, tools=[wait])
        run = pod.run("Count.")
        await asked.wait()
        await pod.cancel()
        await run
        assert (await pod.run("And now?")).text == "1"


async def test_what_a_client_keeps_is_kept_for_each_tier():
    kept: list[tuple[str, int]] = []

    class Keeping:
        def __init__(self, name: str, *replies: Reply) -> None:
            self._name, self._script = name, ScriptedClient(replies)

        def stream(self, request: Request) -> Any:
            assert request.scratch.setdefault("whose", self._name) == self._name
            request.scratch["times"] = request.scratch.get("times", 0) + 1
            kept.append((self._name, request.scratch["times"]))
            return self._script.stream(request)

    local, cloud = Keeping("local", say("1"), say("2")), Keeping("cloud", say("a"), say("b"))
    chain = EscalationChain([SMALL, LARGE], local=local, cloud=cloud, verifier=Verdicts(False, False))
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=chain)
        await pod.run("Count.")
        await pod.run("Again.")
    assert kept == [("local", 1), ("cloud", 1), ("local", 2), ("cloud", 2)]


# -- typed answers -----------------------------------------------------------------------------------


class Count(msgspec.Struct):
    """How many words there are."""

    words: int


async def test_output_that_misfits_its_schema_is_a_rejection_without_asking_the_verifier():
    verifier = Verdicts(YES)
    local = ScriptedClient([say("about twelve")])
    chain = EscalationChain(
        [SMALL, LARGE], local=local, cloud=ScriptedClient([say('{"words": 13}')]), verifier=verifier
    )
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=chain)
        with system.subscribe(kinds=[TierAttempted]) as events:
            assert (await pod.run("Count.", output=Count)).output == Count(13)
            assert "does not fit what was asked for" in events.drain()[0].attempt.feedback
    assert verifier.asked == []


async def test_a_cloud_tier_before_the_last_is_kept_back_where_its_output_has_to_fit():
    entries = [entry_for("claude-haiku-4-5"), entry_for(LARGE)]
    cloud = ScriptedClient([say("about twelve"), say('{"words": 13}')])
    chain = EscalationChain(entries, cloud=cloud)
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=chain)
        assert (await pod.run("Count.", output=Count)).output == Count(13)
    assert len(cloud.requests) == 2


async def test_a_schema_alone_is_looked_at_too():
    schema = {"type": "object", "properties": {"words": {}}, "required": ["words"]}
    chain = chain_of([say('{"commas": 3}')], [say('{"words": 2}')])
    assembler = Assembler()
    async for block in chain.stream(Request([UserItem.of("Count.")], output_schema=schema)):
        assembler.feed(block)
    assert assembler.answer().item.text == '{"words": 2}'


# -- failures ----------------------------------------------------------------------------------------


async def test_a_chain_that_is_exhausted_fails_the_run_and_is_never_retried():
    local, cloud = ScriptedClient([say("12", input_tokens=5, output_tokens=1)]), ScriptedClient([down()])
    chain = EscalationChain(
        [SMALL, LARGE], local=local, cloud=cloud, verifier=Verdicts(NO), retry=RetryPolicy(attempts=1)
    )
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=chain)
        with system.subscribe() as events:
            with pytest.raises(RunFailed, match=r"all tiers exhausted after 2 attempt\(s\)") as caught:
                await pod.run("Count.")
            seen = events.drain()
        assert (await pod.describe()).usage == Usage(5, 1)
        assert (await pod.describe()).state == "idle"
    cause = caught.value.cause
    assert isinstance(cause, ChainExhausted)
    assert (cause.best, len(cause.attempts)) == ("12", 2)
    assert not of(Retry, seen)
    assert (len(local.requests), len(cloud.requests)) == (1, 1)


async def test_a_last_tier_that_streams_half_and_breaks_is_asked_again_and_no_other():
    local = ScriptedClient([say("12", input_tokens=5, output_tokens=1)])
    cloud = Breaking("thir", down(), 1, say("thirteen", input_tokens=7, output_tokens=2))
    chain = EscalationChain([SMALL, LARGE], local=local, cloud=cloud, verifier=Verdicts(NO))
    result, events, described = await played(chain)
    assert result.text == "thirteen"
    assert (len(local.requests), cloud.asked) == (1, 2)
    assert len(of(StreamRestart, events)) == 1
    assert [each.attempt.verdict for each in of(TierAttempted, events)] == ["escalate", "accept"]
    (failed,) = of(AttemptFailed, events)
    assert described.usage.output_tokens == 1 + 2 + failed.usage.output_tokens


async def test_a_cloud_tier_that_streams_half_and_breaks_is_followed_by_the_next():
    first = Breaking("ha", down("server"), 9)
    second = ScriptedClient([say("13", input_tokens=7, output_tokens=2)])
    entries = [entry_for("claude-haiku-4-5"), entry_for(LARGE)]
    chain = EscalationChain(entries, cloud={"claude-haiku-4-5": first, LARGE: second})
    result, events, described = await played(chain)
    assert (result.text, first.asked) == ("13", 1)
    assert [each.attempt.verdict for each in of(TierAttempted, events)] == ["error", "accept"]
    assert len(of(StreamRestart, events)) == 1
    (failed,) = of(AttemptFailed, events)
    assert described.usage == failed.usage + Usage(7, 2)


async def test_a_last_tier_that_breaks_again_and_again_exhausts_the_chain_and_what_was_shown_is_kept_as_cut():
    cloud = Breaking("thir", down(), 9)
    chain = EscalationChain([LARGE], cloud=cloud, retry=RetryPolicy(attempts=2))
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=chain)
        with system.subscribe() as events:
            with pytest.raises(RunFailed, match=r"all tiers exhausted after 1 attempt\(s\)"):
                await pod.run("Count.")
            seen = events.drain()
        described = await pod.describe()
    assert cloud.asked == 2
    (answer,) = of(AssistantMessage, seen)
    assert (answer.item.cut, answer.item.text, answer.item.tier) == (True, "thir", LARGE)
    counted = [
        each.usage for each in seen if isinstance(each, AssistantMessage | AttemptFailed | TierAttempted)
    ]
    assert sum(each.output_tokens for each in counted if each) == described.usage.output_tokens


async def test_a_history_that_no_tier_has_room_for_is_compacted_and_the_chain_asked_again():
    def too_long() -> ModelError:
        return ModelError("too long", kind="context_overflow")

    summary = call("write_summary", {"text": "They count words."})
    local = ScriptedClient([say("one " * 300), too_long(), summary, say("Done."), say("14")])
    cloud = ScriptedClient([too_long()])
    chain = EscalationChain([SMALL, LARGE], local=local, cloud=cloud, verifier=Verdicts(YES, YES))
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(name="p", compact_retained_tokens=10), client=chain)
        await pod.run("Count." * 200)
        with system.subscribe() as events:
            assert (await pod.run("Again.")).text == "14"
            assert len(of(CompactDone, events.drain())) == 1


async def test_a_summary_is_not_verified_and_what_it_takes_is_counted_once():
    verifier = Verdicts(YES)
    summary = call("write_summary", {"text": "They count."}, input_tokens=50, output_tokens=5)
    small = ScriptedClient([say("one " * 300, input_tokens=10, output_tokens=1), down()])
    large = ScriptedClient([summary, say("Done.", input_tokens=60, output_tokens=6)])
    chain = EscalationChain(["a", "b"], local={"a": small, "b": large}, verifier=verifier)
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(name="p", compact_retained_tokens=10), client=chain)
        await pod.run("Count." * 200)
        before = await pod.describe()
        with system.subscribe(kinds=[CompactDone]) as events:
            await pod.compact()
            (done,) = events.drain()
        after = await pod.describe()
    assert done.usage == Usage(110, 11)
    assert after.usage == before.usage + Usage(110, 11)
    assert len(verifier.asked) == 1


# -- cancelling --------------------------------------------------------------------------------------


async def test_a_run_that_is_cancelled_in_the_middle_of_a_verifier_ends_with_what_it_took():
    verifier = HangingVerifier()
    chain = chain_of([say("12", input_tokens=5, output_tokens=1)], [say("13")], verifier=verifier)
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=chain)
        with system.subscribe() as events:
            run = pod.run("Count.")
            await verifier.asked.wait()
            await pod.cancel()
            assert (await run).outcome == "cancelled"
            seen = events.drain()
        assert (await pod.describe()).usage == Usage(5, 1)
    assert verifier.cancelled.is_set()
    assert [each.usage for each in of(AttemptFailed, seen)] == [Usage(5, 1)]
    assert not of(AssistantMessage, seen)


async def test_a_run_that_is_cancelled_in_the_middle_of_a_kept_answer_counts_what_came_of_it():
    local = Hanging("secret " * 40, usage=Usage(50, 0))
    chain = EscalationChain([SMALL, LARGE], local=local, cloud=ScriptedClient([]), verifier=Verdicts())
    manifest = PodManifest.of(name="p", budget={"tokens": 10_000})
    async with PodSystem() as system:
        pod = await system.spawn(manifest, client=chain)
        with system.subscribe() as events:
            run = pod.run("Count.")
            await local.asked.wait()
            await pod.cancel()
            await run
            seen = events.drain()
        described = await pod.describe()
    (failed,) = of(AttemptFailed, seen)
    assert failed.usage == described.usage
    assert (failed.usage.input_tokens, failed.usage.incomplete) == (50, True)
    assert "secret" not in repr(seen)


async def test_a_pod_that_is_paused_in_a_verifier_goes_on_with_its_first_tier():
    verifier = HangingVerifier()
    local = ScriptedClient([say("12"), say("12, again")])

    class Once:
        async def verify(self, *words: str) -> Verdict:
            return YES if verifier.asked.is_set() else await verifier.verify(*words)

    chain = EscalationChain([SMALL, LARGE], local=local, cloud=ScriptedClient([]), verifier=Once())
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=chain)
        run = pod.run("Count.")
        await verifier.asked.wait()
        await pod.pause()
        assert (await run).outcome == "paused"
        assert (await pod.resume()).text == "12, again"


async def test_a_budget_of_seconds_ends_a_verifier_that_hangs():
    verifier = HangingVerifier()
    chain = chain_of([say("12")], [], verifier=verifier)
    manifest = PodManifest.of(name="p", budget={"seconds": 0.1})
    result, _, _ = await played(chain, manifest=manifest)
    assert result.outcome == "budget"
    assert verifier.cancelled.is_set()


async def test_a_client_that_goes_on_though_it_was_cancelled_is_left_and_what_it_took_is_counted():
    deaf_asked = asyncio.Event()

    class Deaf:
        async def stream(self, _: Request) -> Any:
            deaf_asked.set()
            for _ in range(6):
                try:
                    await asyncio.sleep(0.05)
                except asyncio.CancelledError:
                    continue
            yield ThinkingChunk("late")

    chain = EscalationChain([SMALL], local=Deaf(), verifier=Verdicts())
    manifest = PodManifest.of(name="p", budget={"tokens": 10_000})
    async with PodSystem(grace=0.05) as system:
        pod = await system.spawn(manifest, client=chain)
        run = pod.run("Count.")
        await deaf_asked.wait()
        await pod.cancel()
        assert (await run).outcome == "cancelled"
        assert (await pod.describe()).usage.total_tokens > 0


async def test_the_deadline_of_a_request_bounds_all_tiers():
    local = Hanging()
    chain = EscalationChain(
        [SMALL, LARGE], local=local, cloud=ScriptedClient([say("13")]), verifier=Verdicts()
    )
    request = Request([UserItem.of("Count.")], deadline=asyncio.get_running_loop().time() + 0.05)
    with pytest.raises(ModelError, match="time ran out") as caught:
        async for _ in chain.stream(request):
            pass
    assert (caught.value.kind, caught.value.retryable) == ("timeout", False)


async def test_a_chain_with_one_who_is_shown_a_task_alone_is_no_client():
    class Doer:
        async def run(self, _: Any) -> str:
            return "12"

    chain = EscalationChain([SMALL], local=Doer(), verifier=Verdicts())
    with pytest.raises(ModelError, match="cannot answer a conversation"):
        chain.stream(Request([UserItem.of("Count.")]))


async def test_a_run_of_ten_pods_at_once_on_one_chain_mixes_nothing():
    class Echo:
        def __init__(self, word: str) -> None:
            self._word = word

        async def stream(self, request: Request) -> Any:
            await asyncio.sleep(0)
            async for block in say(f"{self._word} {request.items[-1].text.split()[0]}").stream():
                yield block

    async def odd(_: str, task: str, output: str) -> bool:
        await asyncio.sleep(0)
        assert output == f"small {task.split(maxsplit=1)[0]}"
        return int(task.split(maxsplit=1)[0]) % 2 == 0

    chain = EscalationChain([SMALL, LARGE], local=Echo("small"), cloud=Echo("large"), verifier=odd)
    async with PodSystem() as system:
        pods: list[Pod] = [await system.spawn(PLAIN, client=chain) for _ in range(10)]
        done = await asyncio.gather(*(pod.run(f"{number} x") for number, pod in enumerate(pods)))
    assert [each.text for each in done] == [f"{'large' if n % 2 else 'small'} {n}" for n in range(10)]


def test_a_tool_spec_says_whether_it_reads_and_no_model_is_shown_that():
    assert look.spec.concurrency == "read_only"
    assert msgspec.json.encode(ToolSpec("a", "b", {})) == b'{"name":"a","description":"b","input_schema":{}}'
    assert [type(each) for each in call("look").blocks] == [CallStart, CallChunk, CallEnd]


async def test_nobody_pays_for_what_would_follow_a_client_that_goes_on_though_it_was_cancelled():
    asked, go_on = asyncio.Event(), asyncio.Event()

    class Deaf:
        async def stream(self, _: Request) -> Any:
            asked.set()
            while not go_on.is_set():
                try:
                    await go_on.wait()
                except asyncio.CancelledError:
                    continue
            async for block in say("12").stream():
                yield block

    judge, cloud = ScriptedClient([]), ScriptedClient([])
    chain = EscalationChain(
        [SMALL, LARGE], local=Deaf(), cloud=cloud, verifier=ModelVerifier(judge, "It is right.")
    )
    async with PodSystem(grace=0.05) as system:
        pod = await system.spawn(PLAIN, client=chain)
        run = pod.run("Count.")
        await asked.wait()
        await pod.cancel()
        assert (await run).outcome == "cancelled"
        go_on.set()
        for _ in range(20):
            await asyncio.sleep(0)
    assert (judge.requests, cloud.requests) == ([], [])


async def test_a_recorded_chain_is_paid_as_the_chain_is(tmp_path):
    chain = chain_of(
        [say("12", input_tokens=10, output_tokens=1)], [say("13", input_tokens=20, output_tokens=2)], NO
    )
    async with CassetteClient.record(chain, tmp_path / "tape.jsonl") as recorder:
        _, events, described = await played(recorder)
    assert described.usage == Usage(30, 3)
    assert [each.attempt.verdict for each in of(TierAttempted, events)] == ["escalate", "accept"]
    result, _, _ = await played(CassetteClient.replay(tmp_path / "tape.jsonl"))
    assert result.text == "13"


async def test_a_cloud_tier_that_is_cancelled_keeps_what_was_shown_and_its_price():
    cloud = Hanging("first words", usage=Usage(1000, 0))
    chain = EscalationChain([LARGE], cloud=cloud)
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=chain)
        run = pod.run("Count.")
        await cloud.asked.wait()
        await pod.cancel()
        result = await run
        described = await pod.describe()
        history = await pod.history()
    assert (result.outcome, history[-1].text, history[-1].cut) == ("cancelled", "first words", True)
    assert described.usage.input_tokens == 1000
    assert described.cost == pytest.approx(0.005, rel=0.1)


async def test_a_tier_at_work_behind_a_curtain_is_no_model_that_went_silent():
    class Slow:
        async def stream(self, _: Request) -> Any:
            for _ in range(8):
                await asyncio.sleep(0.05)
                yield ThinkingChunk("hm ", 7)
            async for block in say("12").stream():
                yield block

    chain = EscalationChain([SMALL], local=Slow(), verifier=Verdicts(YES))
    manifest = PodManifest.of(name="p", idle_seconds=0.25)
    result, _, _ = await played(chain, manifest=manifest)
    assert result.text == "12"


async def test_a_pod_that_is_a_process_may_have_a_chain(tmp_path, monkeypatch):
    (tmp_path / "own_chain.py").write_text(
        "from polypod import EscalationChain, ScriptedClient, say\n"
        "chain = EscalationChain(['phi4', 'claude-opus-5'],\n"
        "    local=ScriptedClient([say('12', input_tokens=10, output_tokens=1)]),\n"
        "    cloud=ScriptedClient([say('13', input_tokens=20, output_tokens=2)]), verifier=lambda *_: False)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with PodSystem(f"sqlite:{tmp_path}/pods.db", budget={"tokens": 10_000}) as system:
        pod = await system.spawn(PLAIN, client="own_chain:chain", process=True)
        with system.subscribe(kinds=[TierAttempted]) as events:
            assert (await pod.run("Count.")).text == "13"
            assert [each.attempt.verdict for each in events.drain()] == ["escalate", "accept"]
        assert (await pod.describe()).usage == Usage(30, 3)
