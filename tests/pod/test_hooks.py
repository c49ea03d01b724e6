"""Hooks are asked before a tool's call is run, and about its result: whatever they do, the call has one result."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from hook_kit import FAILING, Waiting, in_each_way, raises

from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.pod.runs.tool_runner import NOT_RUN
from actors.system import PodSystem
from actors.tools.base import ToolContext, tool
from actors.tools.hooks import result_for
from protocol.errors import InvalidInput, RunFailed
from protocol.events import Alert, Event, ToolResulted, ToolStart
from protocol.hooks import Deny, Inject, ModelView, Replace
from protocol.items import TextPart, ToolCall, ToolResult, UserItem
from protocol.manifest import PodManifest

PLAIN = PodManifest.of(name="p")


class Till:
    """A tool, and what it was paid."""

    def __init__(self) -> None:
        self.paid: list[int] = []

    def tool(self) -> Any:
        @tool(concurrency="read_only")
        async def pay(amount: int) -> str:
            self.paid.append(amount)
            if amount < 0:
                raise ValueError("too little")
            return f"paid {amount}"

        return pay


class Played:
    """What came of a run in which ``pay`` was called with some amounts."""

    def __init__(self) -> None:
        self.paid: list[int] = []
        self.events: list[Event] = []
        self.results: list[ToolResult] = []

    @property
    def texts(self) -> list[str]:
        return [item.text for item in self.results]

    @property
    def alerts(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Alert)]

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def played(
    *hooks: Any, amounts: Iterable[Any] = (5,), by_system: Iterable[Any] = (), deps: Any = None
) -> Played:
    async def main() -> Played:
        till, seen, amounts_ = Till(), Played(), list(amounts)
        asked = call("pay", {"amount": amounts_[0]})
        for amount in amounts_[1:]:
            asked = asked + call("pay", {"amount": amount})
        client = ScriptedClient([asked, say("done")])
        async with PodSystem(hooks=by_system) as system:
            pod = await system.spawn(PLAIN, client=client, tools=[till.tool()], hooks=hooks, deps=deps)
            with pod.subscribe() as events:
                assert (await asyncio.wait_for(pod.run("go"), 60)).text == "done"
                seen.events = events.drain()
        seen.paid = till.paid
        seen.results = [item for item in client.requests[1].items if isinstance(item, ToolResult)]
        assert sorted(event.item.call_id for event in seen.of(ToolResulted)) == [
            item.call_id for item in seen.results
        ]
        return seen

    return asyncio.run(main())


def before(answer: Callable[..., Any]) -> Any:
    return SimpleNamespace(before_tool=answer, __name__="guard")


def after(answer: Callable[..., Any]) -> Any:
    return SimpleNamespace(after_tool=answer, __name__="guard")


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_each_hook_is_asked_about_each_call_and_its_result_and_changes_nothing_by_none(
    *, is_async: bool
) -> None:
    asked: list[Any] = []

    class Plain:
        def before_tool(self, call: ToolCall) -> None:
            asked.append((call.name, call.arguments))

        def after_tool(self, call: ToolCall, result: ToolResult) -> None:
            asked.append((call.arguments, result.text))

    class Async(Plain):
        async def before_tool(self, call: ToolCall) -> None:
            await asyncio.sleep(0)
            super().before_tool(call)

        async def after_tool(self, call: ToolCall, result: ToolResult) -> None:
            super().after_tool(call, result)

    hook = Async() if is_async else Plain()
    seen = played(hook, by_system=[hook])
    assert asked == [("pay", {"amount": 5})] * 2 + [({"amount": 5}, "paid 5")] * 2
    assert (seen.paid, seen.texts, seen.alerts) == ([5], ["paid 5"], [])


def test_a_hook_that_wants_the_context_gets_that_of_the_call() -> None:
    found: list[Any] = []

    class Hook:
        def before_tool(self, call: ToolCall, ctx: ToolContext) -> None:
            found.append((ctx.pod, ctx.call_id == call.id, ctx.deps))

        async def after_tool(self, call: ToolCall, result: ToolResult, *, ctx: ToolContext) -> None:
            found.append((ctx.pod, ctx.call_id == result.call_id, ctx.deps))

    played(Hook(), deps="till")
    assert found == [("p", True, "till")] * 2


def test_a_denied_call_never_begins_and_its_words_are_its_result() -> None:
    asked_after: list[Any] = []

    class Guard:
        def before_tool(self, call: ToolCall) -> Any:
            return Deny("not that much") if call.arguments["amount"] > 9 else None

        def after_tool(self, call: ToolCall, result: ToolResult) -> None:
            asked_after.append(call.arguments["amount"])

    seen = played(Guard(), amounts=[5, 50, 6])
    assert sorted(seen.paid) == sorted(asked_after) == [5, 6]
    assert seen.texts == ["paid 5", "not that much", "paid 6"]
    assert [item.is_error for item in seen.results] == [False, True, False]
    assert sorted(event.arguments["amount"] for event in seen.of(ToolStart)) == [5, 6]
    assert [event.seconds is None for event in seen.of(ToolResulted)] == [
        event.item.text == "not that much" for event in seen.of(ToolResulted)
    ]


def test_a_denial_wins_over_all_replacements_and_the_first_replacement_over_the_others() -> None:
    one, other = before(lambda call: Replace({"amount": 1})), before(lambda call: Replace({"amount": 2}))
    assert played(one, other).paid == [1]
    assert played(other, by_system=[one]).paid == [1], "those of the system are asked first"
    denied = played(one, before(lambda call: Deny("no")), before(lambda call: Deny("never")))
    assert (denied.paid, denied.texts) == ([], ["no"])


def test_replaced_arguments_are_what_runs_and_what_the_log_says_and_the_next_hook_sees() -> None:
    published: list[Any] = []
    hook = SimpleNamespace(
        before_tool=lambda call: Replace(ToolCall(call.id, call.name, {"amount": 3})),
        after_tool=lambda call, result: published.append(call.arguments),
    )
    seen = played(hook)
    assert (seen.paid, seen.texts, published) == ([3], ["paid 3"], [{"amount": 3}])
    assert [event.arguments for event in seen.of(ToolStart)] == [{"amount": 3}]
    assert [event.arguments for event in seen.of(ToolResulted)] == [{"amount": 3}]
    assert [event.arguments for event in played().of(ToolResulted)] == [None]


def test_replaced_arguments_are_validated_again_and_nothing_runs_with_such_as_do_not_fit() -> None:
    seen = played(before(lambda call: Replace({"amount": "much"})))
    assert seen.paid == []
    assert "invalid arguments for pay" in seen.texts[0]
    assert seen.of(ToolStart) == []


def test_calls_that_policy_refuses_are_nobodys_to_judge() -> None:
    asked: list[Any] = []
    seen = played(before(asked.append), amounts=["much"])
    assert (asked, seen.paid) == ([], [])
    assert "invalid arguments for pay" in seen.texts[0]


def test_what_a_hook_does_to_what_it_is_shown_changes_nothing() -> None:
    def spoil(call: ToolCall) -> None:
        call.arguments["amount"] = 1000

    seen = played(before(spoil), before(spoil))
    assert (seen.paid, seen.texts) == ([5], ["paid 5"])


def test_a_result_is_replaced_withheld_and_added_to() -> None:
    def whole(call: ToolCall, result: ToolResult) -> Any:
        return Replace(ToolResult.of(call, "whole", is_error=True))

    assert played(after(lambda call, result: Replace("****"))).texts == ["****"]
    replaced = played(after(whole), after(lambda call, result: Replace("second")))
    assert (replaced.texts, replaced.results[0].is_error) == (["whole"], True)
    withheld = played(after(lambda call, result: Replace("****")), after(lambda call, result: Deny("secret")))
    assert (withheld.paid, withheld.texts, withheld.results[0].is_error) == ([5], ["secret"], True)
    noted = played(after(lambda call, result: Inject("mind the gap")), before(lambda call: Inject("first")))
    assert noted.texts == ["paid 5\nmind the gap\nfirst"]


def test_a_text_in_the_place_of_a_long_result_does_not_lead_to_the_file_that_has_it_whole() -> None:
    published = ToolCall("1", "pay", {})
    long = ToolResult("1", "pay", (TextPart("secret"),), is_error=True, kept="/kept/pay.txt")
    assert result_for(long, "****") == ToolResult.of(published, "****", is_error=True)


def test_words_of_a_hook_that_no_json_holds_are_made_encodable() -> None:
    seen = played(after(lambda call, result: Replace("a\ud800")), before(lambda call: Inject("b\ud800")))
    assert seen.texts == ["a\ufffd\nb\ufffd"]


class _Marked(str):
    """As a template library's safe text."""

    __slots__ = ()


LONG = "é" * 100_000
CAP = PLAIN.tools.output_cap


def loud(*_: Any) -> Any:
    raise ValueError(LONG)


@pytest.mark.parametrize(
    ("hook", "paid"),
    [
        (before(lambda _: Deny(LONG)), []),
        (before(loud), []),
        (before(lambda _: Inject(LONG)), [5]),
        (after(lambda *_: Deny(LONG)), [5]),
        (after(lambda *_: Replace(LONG)), [5]),
        (after(lambda *_: Inject(LONG)), [5]),
        (after(loud), [5]),
    ],
    ids=["denies", "raises", "injects", "withholds", "replaces", "adds", "raises after"],
)
def test_what_hooks_say_at_length_is_cut_as_what_tools_give_is(hook: Any, paid: list[int]) -> None:
    seen = played(hook)
    assert seen.paid == paid
    (text,) = seen.texts
    assert len(text.encode()) < CAP + 200
    assert "bytes cut here" in text or "…" in text or text == "paid 5"
    assert all(len(each) < 2200 for each in seen.alerts)


def test_a_result_that_was_cut_is_not_cut_again_for_what_a_hook_changes_in_it() -> None:
    @tool
    async def read() -> str:
        return "secret " * 10_000

    async def main() -> str:
        client = ScriptedClient([call("read", {}), say("done")])
        hides = after(lambda _, result: Replace(result.text.replace("secret", "******")))
        async with PodSystem() as system:
            pod = await system.spawn(PLAIN, client=client, tools=[read], hooks=[hides])
            await pod.run("go")
        (result,) = [item for item in client.requests[1].items if isinstance(item, ToolResult)]
        return result.text

    text = asyncio.run(main())
    assert text.count("bytes cut here") == 1
    assert "secret" not in text


@pytest.mark.parametrize("where", ["before_tool", "before_request"])
def test_a_value_within_itself_that_a_hook_gives_holds_nobody_up(where: str) -> None:
    around: list[Any] = [1]
    around += [around, around]
    if where == "before_tool":
        seen = played(before(lambda _: Replace({"amount": around})))
        assert seen.paid == []
        assert "expected `int`" in seen.texts[0]
    else:
        shown = ModelView((UserItem(around),))  # type: ignore[arg-type]
        with pytest.raises(RunFailed, match=r"before_request failed: .*Expected"):
            played(SimpleNamespace(before_request=lambda _: Replace(shown), __name__="guard"))


def test_words_of_a_class_of_their_own_are_words_like_others() -> None:
    marked = _Marked("no")

    def whole(call: ToolCall, result: ToolResult) -> Any:
        return Replace(ToolResult(call.id, call.name, (TextPart(marked),)))

    assert played(before(lambda call: Deny(marked))).texts == ["no"]
    assert played(after(lambda call, result: Replace(marked))).texts == ["no"]
    assert played(after(whole)).texts == ["no"]
    assert played(after(lambda call, result: Inject(marked))).texts == ["paid 5\nno"]


FAILING_AT_TOOLS = FAILING | {
    "replaces another": lambda *_: Replace(ToolCall("other", "other", {})),
    "replaces another's result": lambda *_: Replace(ToolResult("other", "other")),
    "replaces by what is none": lambda about, *_: Replace(ToolResult(about.id, about.name, 7)),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("kind", ["plain", "async", "awaitable"])
@pytest.mark.parametrize("how", FAILING_AT_TOOLS)
def test_a_hook_that_fails_before_a_tool_denies_and_after_it_changes_nothing_and_people_are_notified(
    how: str, kind: str
) -> None:
    answer = in_each_way(FAILING_AT_TOOLS[how], kind)
    seen = played(SimpleNamespace(before_tool=answer, __name__="guard"), amounts=[5, 6])
    assert seen.paid == []
    assert all("was not run: the hook guard.before_tool failed" in text for text in seen.texts)
    assert len(seen.alerts) == len(seen.results) == 2
    seen = played(SimpleNamespace(after_tool=answer, __name__="guard"))
    assert (seen.paid, seen.texts) == ([5], ["paid 5"])
    assert [text.startswith("the hook guard.after_tool failed: ") for text in seen.alerts] == [True]


def test_a_denial_beside_a_failing_hook_says_its_own_words() -> None:
    seen = played(before(raises), before(lambda call: Deny("no")))
    assert (seen.paid, seen.texts, len(seen.alerts)) == ([], ["no"], 1)


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_a_hook_that_takes_too_long_has_failed(*, is_async: bool) -> None:
    released = threading.Event()

    async def hang(call: ToolCall) -> None:
        await asyncio.Event().wait()

    def block(call: ToolCall) -> None:
        released.wait(30)

    seen = played(SimpleNamespace(before_tool=hang if is_async else block, timeout=0.01))
    released.set()
    assert seen.paid == []
    assert "not done after 0.01 s" in seen.texts[0]
    assert "not done after 0.01 s" in seen.alerts[0]


# -- cancel, pause, stop -------------------------------------------------------------------------


def test_what_a_plain_hook_gives_to_be_awaited_when_its_time_is_up_is_closed() -> None:
    go_on = threading.Event()
    given: list[Any] = []

    async def rule() -> None: ...

    def slow(_: ToolCall) -> Any:
        go_on.wait(10)
        given.append(rule())
        return given[0]

    async def main() -> None:
        client = ScriptedClient([call("pay", {"amount": 5}), say("done")])
        async with PodSystem() as system:
            hook = SimpleNamespace(before_tool=slow, timeout=0.01)
            pod = await system.spawn(PLAIN, client=client, tools=[Till().tool()], hooks=[hook])
            assert (await pod.run("go")).text == "done"
            go_on.set()
            while not given or inspect.getcoroutinestate(given[0]) != inspect.CORO_CLOSED:  # noqa: ASYNC110 - nobody says so
                await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(main(), 60))


async def texts_of(pod: Pod) -> list[str]:
    return [item.text for item in await pod.history() if isinstance(item, ToolResult)]


@pytest.mark.parametrize("how", ["cancel", "pause"])
@pytest.mark.parametrize("where", ["before_tool", "after_tool"])
@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_hook_is_cancelled_with_its_call_and_an_end_does_not_wait_for_one_that_goes_on(
    how: str, where: str, *, stubborn: bool
) -> None:
    till, hook = Till(), Waiting(where, stubborn=stubborn)
    client = ScriptedClient([call("pay", {"amount": 5}), say("next")])
    async with PodSystem(grace=0.05) as system:
        pod = await system.spawn(PLAIN, client=client, tools=[till.tool()], hooks=[hook])
        run = pod.run("go")
        await hook.reached.wait()
        await getattr(pod, how)()
        assert (await run).outcome == ("cancelled" if how == "cancel" else "paused")
        assert hook.cancelled
        began = where == "after_tool"
        assert till.paid == ([5] if began else [])
        texts = await texts_of(pod)
        assert ["outcome unknown" in text for text in texts] == [began]
        assert [text == NOT_RUN for text in texts] == [not began]
        following = pod.run("more") if how == "cancel" else pod.resume()
        assert (await following).text == "next"
        hook.release.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert await texts_of(pod) == texts, "what is left behind has no effect"
        assert till.paid == ([5] if began else [])


async def test_a_paused_run_goes_on_and_its_next_calls_are_judged() -> None:
    till, hook = Till(), Waiting("before_tool")
    client = ScriptedClient([call("pay", {"amount": 5}), call("pay", {"amount": 6}), say("done")])
    async with PodSystem() as system:
        pod = await system.spawn(PLAIN, client=client, tools=[till.tool()], hooks=[hook])
        run = pod.run("go")
        await hook.reached.wait()
        await pod.pause()
        assert (await run).outcome == "paused"
        hook.release.set()
        assert (await pod.resume()).text == "done"
        assert (till.paid, await texts_of(pod)) == ([6], [NOT_RUN, "paid 6"])


async def test_a_system_is_left_while_a_hook_waits() -> None:
    till, hook = Till(), Waiting("before_tool")
    async with PodSystem() as system:
        client = ScriptedClient([call("pay", {"amount": 5})])
        pod = await system.spawn(PLAIN, client=client, tools=[till.tool()], hooks=[hook])
        run = pod.run("go")
        await hook.reached.wait()
    assert (await run).outcome == "paused"
    assert (hook.cancelled, till.paid) == (1, [])


# -- what is not a hook -----------------------------------------------------------------------------


class Guard:
    """Lets all pass."""

    def before_tool(self, call: ToolCall) -> None: ...


class Hiding:
    """Raises whenever it is asked for a name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattribute__(self, name: str) -> Any:
        if name == object.__getattribute__(self, "name"):
            raise KeyError(name)
        return object.__getattribute__(self, name)

    def before_tool(self, call: ToolCall) -> None: ...


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        *((Hiding(name), f"Hiding is not a hook: KeyError: '{name}'") for name in ("before_tool", "timeout")),
        (Hiding("after_tool"), "Hiding is not a hook: KeyError: 'after_tool'"),
        (object(), "object has none of a hook's methods"),
        (Guard, "Guard is a class"),
        (SimpleNamespace(before_tool=lambda: None), "before_tool cannot be called with \\(call\\)"),
        (
            SimpleNamespace(after_tool=lambda call: None),
            "after_tool cannot be called with \\(call, result\\)",
        ),
        (SimpleNamespace(before_tool=7), "before_tool cannot be called"),
        (SimpleNamespace(before_tool=lambda call: None, timeout=0), "timeout: expected more than 0 seconds"),
        (SimpleNamespace(before_request=lambda: None), "before_request cannot be called with \\(view\\)"),
        (SimpleNamespace(on_run_end=lambda: None), "on_run_end cannot be called with \\(result\\)"),
    ],
)
async def test_what_is_no_hook_is_refused_where_it_is_given(hook: Any, words: str) -> None:
    async with PodSystem() as system:
        with pytest.raises(InvalidInput, match=words):
            await system.spawn(PLAIN, client=ScriptedClient([]), hooks=[hook])
        assert system.pods() == []
    async with PodSystem(hooks=[hook]) as system:
        with pytest.raises(InvalidInput, match=words):
            await system.spawn(PLAIN, client=ScriptedClient([]))


async def test_pods_of_one_manifest_have_their_own_hooks() -> None:
    till = Till()
    pay, guard = till.tool(), before(lambda call: Deny("no"))
    async with PodSystem() as system:
        for hooks in ([], [guard], []):
            client = ScriptedClient([call("pay", {"amount": len(till.paid)}), say("done")])
            pod = await system.spawn(PLAIN, client=client, tools=[pay], hooks=hooks)
            await pod.run("go")
    assert till.paid == [0, 1]
