"""Hooks are asked before each request and reported of each run's end: what a request shows is theirs, the log is not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import pytest
from compaction_stage import OVERFLOW, SUMMARY
from every_commit import Refusing
from hook_kit import FAILING, Waiting, in_each_way, raises
from msgspec.structs import replace
from pod_stage import GatedClient

from actors.llm.base import Request
from actors.llm.scripted import ScriptedClient, call, say
from actors.system import PodSystem
from actors.tools.base import ToolContext, tool
from protocol.errors import HookError, ModelError, PodStopped, RunFailed
from protocol.events import Alert, BudgetExceeded, RunEnd
from protocol.hooks import Deny, Inject, ModelView, Replace
from protocol.items import SystemItem, TextPart, ToolCall, UserItem
from protocol.manifest import PodManifest
from protocol.results import RunResult
from protocol.tools import ToolSpec

PLAIN = PodManifest.of(name="p", system_prompt="Be kind.")


@tool(concurrency="read_only", blocking=False)
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


def shown(request: Request) -> list[str]:
    return [item.text for item in request.items]


def before(answer: Callable[..., Any], **more: Any) -> Any:
    return SimpleNamespace(before_request=answer, __name__="guard", **more)


def at_end(answer: Callable[..., Any], **more: Any) -> Any:
    return SimpleNamespace(on_run_end=answer, __name__="guard", **more)


async def alerts_of(system: PodSystem) -> list[str]:
    with system.subscribe(kinds=[Alert], since=0) as events:
        return [event.text for event in events.drain() if isinstance(event, Alert)]


# -- before a request ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "async", "awaitable"])
async def test_each_request_is_shown_and_goes_out_as_it_is_by_none(kind: str) -> None:
    seen: list[ModelView] = []
    client = ScriptedClient([call("pay", {"amount": 5}), say("done")])
    hook = before(in_each_way(seen.append, kind))
    async with PodSystem(hooks=[hook]) as system:
        pod = await system.spawn(PLAIN, client=client, tools=[pay], hooks=[hook])
        assert (await pod.run("go")).text == "done"
    assert [[item.text for item in view.items] for view in seen[::2]] == [["go"], ["go", "", "paid 5"]]
    assert seen[0] == seen[1]
    assert {view.system for view in seen} == {"Be kind."}
    assert [each.name for each in seen[0].tools] == ["pay"]
    assert [shown(request) for request in client.requests] == [["go"], ["go", "", "paid 5"]]


async def test_what_is_put_in_the_place_of_the_view_is_sent_and_not_recorded() -> None:
    def change(view: ModelView) -> Replace:
        items = tuple(UserItem((TextPart(item.text.replace("4711", "****")),)) for item in view.items)
        return Replace(ModelView(items, "Be brief.", (ToolSpec("other", "words", {"type": "object"}),)))

    client = ScriptedClient([say("done"), say("again")])
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=client, tools=[pay], hooks=[before(change)])
        await pod.run("my pin is 4711")
        await pod.run("more")
        history = await pod.history()
    request = client.requests[0]
    assert (shown(request), request.system) == (["my pin is ****"], "Be brief.")
    assert [each.name for each in request.tools] == ["other"]
    assert shown(client.requests[1]) == ["my pin is ****", "done", "more"]
    assert [item.text for item in history] == ["my pin is 4711", "done", "more", "again"]


async def test_words_that_are_injected_stand_last_in_that_request_alone() -> None:
    published = iter(["it is noon", "it is night"])
    client = ScriptedClient([say("one"), say("two")])
    async with PodSystem() as system:
        hook = before(lambda view: Inject(next(published)))
        pod = await system.spawn(PLAIN, client=client, hooks=[hook])
        await pod.run("a")
        await pod.run("b")
        assert [item.text for item in await pod.history()] == ["a", "one", "b", "two"]
    assert [shown(request) for request in client.requests] == [
        ["a", "it is noon"],
        ["a", "one", "b", "it is night"],
    ]
    assert isinstance(client.requests[0].items[-1], SystemItem)


async def test_the_first_replacement_wins_and_all_injections_stand_behind_it() -> None:
    def to(text: str) -> Any:
        return before(lambda view: Replace(replace(view, items=(UserItem((TextPart(text),)),))))

    client = ScriptedClient([say("done")])
    async with PodSystem(hooks=[before(lambda view: Inject("x"))]) as system:
        hooks = [to("one"), to("two"), before(lambda view: Inject("y"))]
        await (await system.spawn(PLAIN, client=client, hooks=hooks)).run("go")
    assert shown(client.requests[0]) == ["one", "x", "y"]


async def test_a_view_that_changes_but_for_its_items_leaves_the_clients_scratch_to_them() -> None:
    client = ScriptedClient([say("a"), say("b")])
    async with PodSystem() as system:
        hook = before(lambda view: Replace(replace(view, system=None)))
        pod = await system.spawn(PLAIN, client=client, hooks=[hook])
        await pod.run("x")
        await pod.run("y")
    one, other = client.requests
    assert (one.system, one.scratch is other.scratch) == (None, True)
    assert not isinstance(other.items, tuple), "the view that need not be copied"


async def test_a_hook_knows_the_pod_and_what_the_run_was_handed() -> None:
    found: list[Any] = []

    class Hook:
        def before_request(self, view: ModelView, ctx: ToolContext) -> None:
            found.append((ctx.pod, ctx.deps))

        async def on_run_end(self, result: RunResult, *, ctx: ToolContext) -> None:
            found.append((ctx.pod, ctx.deps))

    async with PodSystem() as system:
        client = ScriptedClient([say("a"), say("b")])
        pod = await system.spawn(PLAIN, client=client, hooks=[Hook()], deps="till")
        await pod.run("x")
        await pod.run("y", deps=0)
    assert found == [("p", "till")] * 2 + [("p", 0)] * 2


async def test_a_hook_sees_the_context_variables_of_who_asked_for_the_run() -> None:
    whose = ContextVar("whose", default="nobody")
    found: list[str] = []
    hook = SimpleNamespace(
        before_request=lambda view: found.append(whose.get()),
        on_run_end=lambda result: found.append(whose.get()),
    )
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=ScriptedClient([say("a")]), hooks=[hook])
        whose.set("ours")
        await pod.run("x")
    assert found == ["ours"] * 2


async def test_words_of_a_hook_that_no_json_holds_are_made_fit() -> None:
    def change(view: ModelView) -> Replace:
        return Replace(ModelView((UserItem((TextPart("a\ud800"),)),), "b\ud800"))

    client = ScriptedClient([say("done")])
    async with PodSystem() as system:
        await (await system.spawn(PLAIN, client=client, hooks=[before(change)])).run("go")
    assert (shown(client.requests[0]), client.requests[0].system) == (["a\ufffd"], "b\ufffd")


NO_VIEWS = {
    "items that are none": lambda view: Replace(replace(view, items=7)),
    "an item that is none": lambda view: Replace(replace(view, items=("words",))),
    "a tool that is none": lambda view: Replace(replace(view, tools=(pay,))),
    "a system prompt that is none": lambda view: Replace(replace(view, system=7)),
    "an item that holds nonsense": lambda view: Replace(replace(view, items=(UserItem((7,)),))),  # type: ignore[arg-type]
    "replaces by a call": lambda view: Replace(ToolCall("1", "pay", {})),
}


@pytest.mark.parametrize("kind", ["plain", "async", "awaitable"])
@pytest.mark.parametrize("how", FAILING | NO_VIEWS)
async def test_a_hook_that_fails_ends_its_run_alone_and_is_named(how: str, kind: str) -> None:
    failing = [True]
    answer = in_each_way((FAILING | NO_VIEWS)[how], kind)
    client = ScriptedClient([say("done")])
    async with PodSystem() as system:
        hook = before(lambda view: answer(view) if failing else None)
        pod = await system.spawn(PLAIN, client=client, hooks=[hook])
        with pytest.raises(RunFailed, match=r"the hook guard\.before_request failed: ") as failed:
            await pod.run("go")
        assert isinstance(failed.value.cause, HookError)
        assert failed.value.cause.hook == "guard.before_request"
        assert client.requests == []
        failing.clear()
        assert (await pod.run("again")).text == "done"
        assert [item.text for item in await pod.history()] == ["go", "again", "done"]


async def test_a_request_that_is_denied_ends_its_run_with_the_words() -> None:
    async with PodSystem() as system:
        client = ScriptedClient([call("pay", {"amount": 5})])
        hooks = [
            before(lambda view: Deny("no more") if len(view.items) > 1 else None),
            before(lambda view: raises() if len(view.items) > 1 else None),
        ]
        pod = await system.spawn(PLAIN, client=client, tools=[pay], hooks=hooks)
        with pytest.raises(RunFailed, match=r"the hook guard\.before_request denied the request: no more"):
            await pod.run("go")
        assert [item.text for item in await pod.history()] == ["go", "", "paid 5"]


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
async def test_a_hook_that_takes_too_long_before_a_request_ends_its_run(*, is_async: bool) -> None:
    released = threading.Event()

    async def hang(view: ModelView) -> None:
        await asyncio.Event().wait()

    def block(view: ModelView) -> None:
        released.wait(30)

    async with PodSystem() as system:
        hook = before(hang if is_async else block, timeout=0.01)
        pod = await system.spawn(PLAIN, client=ScriptedClient([]), hooks=[hook])
        with pytest.raises(RunFailed, match=r"not done after 0\.01 s"):
            await pod.run("go")
        released.set()


async def test_words_that_come_while_a_hook_waits_are_in_the_next_request() -> None:
    hook, client = Waiting("before_request"), ScriptedClient([say("one"), say("two")])
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=client, hooks=[hook])
        run = pod.run("go")
        await hook.reached.wait()
        steered = pod.steer("and that")
        hook.release.set()
        assert (await run).text == "two"
        await steered
    assert [shown(request) for request in client.requests] == [["go"], ["go", "one", "and that"]]


async def test_a_request_that_is_sent_again_after_a_compaction_is_asked_about_again() -> None:
    asked: list[int] = []
    script = [say("one " * 400), say("two " * 400), OVERFLOW, *SUMMARY, say("done")]
    async with PodSystem() as system:
        hook = before(lambda view: asked.append(len(view.items)))
        pod = await system.spawn(PLAIN, client=ScriptedClient(script), hooks=[hook])
        await pod.run("a " * 400)
        await pod.run("b " * 400)
        await pod.run("go")
    assert len(asked) == 4
    assert asked[3] < asked[2]


async def test_a_budget_holds_back_what_the_changed_request_takes() -> None:
    manifest = PodManifest.of(name="p", max_tokens=10, budget={"tokens": 1000})
    client = ScriptedClient([])
    async with PodSystem() as system:
        hook = before(lambda view: Inject("long " * 2000))
        pod = await system.spawn(manifest, client=client, hooks=[hook])
        with pod.subscribe(kinds=[BudgetExceeded]) as events:
            assert (await pod.run("go")).outcome == "budget"
            assert len(events.drain()) == 1
    assert client.requests == []


async def test_a_budget_of_seconds_ends_a_hook_that_waits() -> None:
    manifest = PodManifest.of(name="p", budget={"seconds": 0.05})
    hook = Waiting("before_request")
    async with PodSystem() as system:
        pod = await system.spawn(manifest, client=ScriptedClient([]), hooks=[hook])
        assert (await pod.run("go")).outcome == "budget"
    assert hook.cancelled == 1


# -- the end of a run ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "async", "awaitable"])
async def test_the_end_of_a_run_is_reported_before_its_result_is(kind: str) -> None:
    published: list[RunResult] = []
    hook = at_end(in_each_way(published.append, kind))
    async with PodSystem(hooks=[hook]) as system:
        pod = await system.spawn(PLAIN, client=ScriptedClient([say("done")]), hooks=[hook])
        result = await pod.run("go")
        assert published == [result, result]
        assert await alerts_of(system) == []


async def test_every_outcome_is_reported() -> None:
    published: list[tuple[str, str]] = []
    manifest = PodManifest.of(name="p", max_steps=1)
    script = [
        say("done"),
        call("pay", {"amount": 5}),
        ModelError("no", kind="auth"),
        say("no", stop_reason="refusal"),
    ]
    async with PodSystem() as system:
        hook = at_end(lambda result: published.append((result.outcome, result.text)))
        pod = await system.spawn(manifest, client=ScriptedClient(script), tools=[pay], hooks=[hook])
        await pod.run("a")
        await pod.run("b")
        with pytest.raises(RunFailed):
            await pod.run("c")
        await pod.run("d")
    assert published == [("finished", "done"), ("limit_reached", ""), ("failed", ""), ("refused", "no")]


@pytest.mark.parametrize("kind", ["plain", "async", "awaitable"])
@pytest.mark.parametrize("how", [*FAILING, "denies"])
async def test_a_hook_that_fails_at_the_end_is_an_alert_and_changes_nothing(how: str, kind: str) -> None:
    answer = in_each_way(FAILING.get(how, lambda _: Deny("no")), kind)
    published: list[str] = []
    async with PodSystem() as system:
        hooks = [at_end(answer), at_end(lambda result: published.append(result.text))]
        pod = await system.spawn(PLAIN, client=ScriptedClient([say("done"), say("more")]), hooks=hooks)
        result = await pod.run("go")
        assert (result.text, result.outcome, published) == ("done", "finished", ["done"])
        alerts = await alerts_of(system)
        assert [text.startswith("the hook guard.on_run_end failed: ") for text in alerts] == [True]
        assert how in FAILING or "on_run_end cannot change a run; return None" in alerts[0]
        assert (await pod.run("go on")).text == "more"


async def test_a_store_that_does_not_take_the_alert_changes_nothing_either() -> None:
    store = Refusing(lambda commit: False)
    async with PodSystem(store=store) as system:

        def fail(result: RunResult) -> None:
            store.refuses = lambda commit: True
            raises()

        pod = await system.spawn(PLAIN, client=ScriptedClient([say("done")]), hooks=[at_end(fail)])
        assert (await pod.run("go")).text == "done"
        store.refuses = lambda commit: False


# -- cancel, pause, stop -------------------------------------------------------------------------


@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.parametrize("how", ["cancel", "pause"])
async def test_an_end_does_not_wait_for_a_hook_that_waits_before_a_request(
    how: str, *, stubborn: bool
) -> None:
    hook = Waiting("before_request", stubborn=stubborn)
    client = ScriptedClient([say("next")])
    async with PodSystem(grace=0.05) as system:
        pod = await system.spawn(PLAIN, client=client, hooks=[hook])
        run = pod.run("go")
        await hook.reached.wait()
        await getattr(pod, how)()
        assert (await run).outcome == ("cancelled" if how == "cancel" else "paused")
        assert hook.cancelled
        assert client.requests == []
        assert ["a hook did not end" in text for text in await alerts_of(system)] == [True] * stubborn
        hook.release.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert client.requests == [], "what is left behind has no effect"
        following = pod.run("more") if how == "cancel" else pod.resume()
        assert (await following).text == "next"


async def test_a_plain_hook_that_never_returns_ends_with_its_run() -> None:
    reached, released = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def block(view: ModelView) -> None:
        loop.call_soon_threadsafe(reached.set)
        released.wait(30)

    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=ScriptedClient([]), hooks=[before(block)])
        run = pod.run("go")
        await reached.wait()
        await pod.cancel()
        assert (await run).outcome == "cancelled"
        released.set()


@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.parametrize("how", ["cancel", "pause"])
async def test_a_hook_that_waits_at_the_end_is_interrupted_and_the_end_is_as_it_was(
    how: str, *, stubborn: bool
) -> None:
    hook = Waiting("on_run_end", stubborn=stubborn)
    async with PodSystem(grace=0.05) as system:
        pod = await system.spawn(PLAIN, client=ScriptedClient([say("done"), say("more")]), hooks=[hook])
        run = pod.run("go")
        await hook.reached.wait()
        await getattr(pod, how)()
        result = await run
        assert (result.outcome, result.text) == ("finished", "done")
        assert hook.cancelled
        assert ["a hook did not end" in text for text in await alerts_of(system)] == [True] * stubborn
        hook.release.set()
        assert (await pod.run("next")).text == "more"


@pytest.mark.parametrize("how", ["cancel", "pause"])
async def test_hooks_learn_of_a_run_that_was_interrupted_and_hold_nobody_up(how: str) -> None:
    published: list[str] = []
    hook = Waiting("on_run_end")
    client = GatedClient([say("never")])
    async with PodSystem(grace=0.05) as system:
        hooks = [at_end(lambda result: published.append(result.outcome)), hook]
        pod = await system.spawn(PLAIN, client=client, hooks=hooks)
        run = pod.run("go")
        await client.asked.acquire()
        await getattr(pod, how)()
        assert published == [(await run).outcome]
    assert hook.cancelled == 1


@pytest.mark.parametrize("where", ["before_request", "on_run_end"])
@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_system_is_left_while_such_a_hook_waits(where: str, *, stubborn: bool) -> None:
    hook = Waiting(where, stubborn=stubborn)
    async with PodSystem(grace=0.05) as system:
        client = ScriptedClient([say("done")] if where == "on_run_end" else [])
        pod = await system.spawn(PLAIN, client=client, hooks=[hook])
        run = pod.run("go")
        await hook.reached.wait()
    hook.release.set()
    assert (await run).outcome == ("paused" if where == "before_request" else "finished")
    assert hook.cancelled


@pytest.mark.parametrize("where", ["before_request", "on_run_end"])
@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_pod_is_stopped_while_such_a_hook_waits(where: str, *, stubborn: bool) -> None:
    hook = Waiting(where, stubborn=stubborn)
    async with PodSystem(grace=0.05) as system:
        client = ScriptedClient([say("done")] if where == "on_run_end" else [])
        pod = await system.spawn(PLAIN, client=client, hooks=[hook])
        run, queued = pod.run("go"), pod.run("never")
        await hook.reached.wait()
        await pod.stop()
        assert (await run).outcome == ("cancelled" if where == "before_request" else "finished")
        with pytest.raises(PodStopped):
            await queued
        assert hook.cancelled
        hook.release.set()


async def test_words_that_come_while_a_hook_waits_at_the_end_start_a_run_or_have_come_too_late() -> None:
    hook, client = Waiting("on_run_end"), ScriptedClient([say("one"), say("two")])
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=client, hooks=[hook])
        run = pod.run("go")
        await hook.reached.wait()
        noted = pod.notify("news")
        hook.release.set()
        assert (await run).text == "one"
        await noted
        with pod.subscribe(kinds=[RunEnd], since=0) as events:
            ends = [await anext(events), await anext(events)]
        assert len(ends) == 2
    assert shown(client.requests[1]) == ["go", "one", "news"]
