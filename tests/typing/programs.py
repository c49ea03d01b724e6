"""Programs as users write them, for the type checker alone: ``make types`` reads them, nothing runs them."""

from typing import Any, assert_type

import msgspec

from polypod import *
from polypod import (
    AllOf,
    EscalationChain,
    Event,
    FunctionVerifier,
    PodEnded,
    PodManifest,
    PodStopped,
    PodSystem,
    RunEnd,
    RunResult,
    Scope,
    tool,
)
from polypod.testing import FunctionClient, ScriptedClient, call, say


class City(msgspec.Struct):
    """What is asked for."""

    name: str
    people: int


@tool(concurrency="read_only")
def population(town: str) -> int:
    """How many people live in a town."""
    return len(town)


class Shop:
    """What a tool works with."""

    def orders(self, customer: str) -> list[str]:
        return [customer]


@tool
def orders(customer: str, ctx: ToolContext[Shop]) -> list[str]:
    """The type of ``ctx.deps`` is that of the annotation; without one it is Any."""
    assert_type(ctx.deps, Shop)
    return ctx.deps.orders(customer)


@tool
def bare(ctx: ToolContext) -> str:
    assert_type(ctx.deps, Any)
    return str(ctx.deps)


class Lists:
    """A source of tools, as users write one."""

    def __init__(self) -> None:
        self.name = "lists"

    async def open(self) -> None:
        """Nothing is needed."""

    def tools(self) -> list[Tool]:
        """One that is always there."""
        return [population]

    async def close(self) -> None:
        """Nothing was taken."""


async def a_source_stands_among_tools(system: PodSystem) -> None:
    """Whatever has its three methods is one."""
    source: ToolSource = Lists()
    await system.spawn(PodManifest.of(), tools=[source, orders])


async def a_tool_is_handed_what_it_works_with(system: PodSystem) -> None:
    pod = await system.spawn(PodManifest.of(), tools=[orders, bare], deps=Shop())
    assert_type(await pod.run("hi", deps=Shop()), RunResult[None])
    assert_type((await pod.run("hi", output=City, deps=Shop())).output, City)
    pod.stream("hi", deps=Shop())


async def a_run_has_the_output_that_was_asked_for(system: PodSystem) -> None:
    """``RunResult`` is generic in its output."""
    pod = await system.spawn(PodManifest.of(scope=Scope.readable(".")), tools=[population])
    assert_type(await pod.run("hi"), RunResult[None])
    assert_type((await pod.run("hi", output=City)).output, City)
    assert_type((await pod.run("hi", output=str)).output, str)
    assert_type((await pod.run("hi", output=list[City])).output, list[City])
    assert_type((await pod.run("hi", output=int | str)).output, Any)
    assert_type(pod.run("hi", output=City, busy="reject").get(timeout=1), RunResult[City])
    assert_type((await pod.resume()).output, Any)
    assert_type((await pod.resume(output=City)).output, City)
    assert_type(await pod.run("hi", output=City, cancel_on_abandon=True), RunResult[City])


async def a_system_runs_a_manifest(system: PodSystem) -> None:
    """The output is that of the one run."""
    assert_type(await system.run(PodManifest.of(), "hi", session="mine"), RunResult[None])
    result = await system.run(PodManifest.of(), "hi", output=City, tools=[population], deps=Shop())
    assert_type(result.output, City)
    assert_type(result.cost, float | None)
    assert_type(result.steps, int)


async def a_run_has_options_of_its_own(pod: Pod, client: LLMClient, shared: RunOptions) -> None:
    """Those of ``RunOptions``, by name; they may be kept in a dict of that type."""

    async def prompt(ctx: ToolContext[Shop]) -> str:
        return ", ".join(ctx.deps.orders("Ada"))

    def check(city: City) -> City | None:
        if not city.people:
            raise ModelRetry("Nobody lives there.")
        return None

    result = await pod.run(
        "hi",
        output=City,
        model="ollama/qwen3",
        model_settings=ModelSettings(temperature=0, reasoning_effort="low", stop=("END",)),
        system_prompt=prompt,
        tools=[population],
        output_validator=check,
        busy="reject",
    )
    assert_type(result, RunResult[City])
    assert_type(await pod.run("hi", **shared), RunResult[None])
    await pod.run(
        "hi", model=client, model_settings={"seed": 1, "extra_body": {"top_k": 1}}, system_prompt="Be brief."
    )
    await pod.run("hi", model=FunctionClient(lambda request: request.items[-1].text))
    assert_type((await pod.resume(output=City, deps=Shop(), model="offline")).output, City)


async def a_stream_has_a_result_of_its_type(pod: Pod) -> None:
    stream = pod.stream("hi", output=City)
    assert_type(stream, RunStream[City])
    assert_type((await stream.result).output, City)
    async for event in stream:
        assert_type(event, Event)
    async with pod.stream("hi") as plain:
        assert_type((await plain.result).output, None)
        async for piece in plain.text():
            assert_type(piece, str)


def a_stream_is_read_by_plain_code(system: PodSystem) -> None:
    started = system.start()
    assert_type(started, PodSystem)
    pod = started.spawn(PodManifest.of()).get()
    with pod.stream("hi", output=City) as stream:
        for event in stream:
            assert_type(event, Event)
        for piece in stream.text():
            assert_type(piece, str)
        assert_type(stream.result.get().output, City)


def a_result_may_be_annotated_with_and_without_its_type(bare: RunResult, one: RunResult[City]) -> int:
    """Annotations of old programs are still complete."""
    assert_type(bare.output, Any)
    return one.output.people


async def kinds_are_events_also_by_their_old_name(system: PodSystem, pod: Pod) -> None:
    """``PodStopped`` was the name of the event ``PodEnded``, too."""
    system.subscribe(kinds=[RunEnd, PodStopped])
    system.subscribe(kinds=[RunEnd, PodEnded], since=0)
    system.subscribe(kinds=RunEnd)
    system.subscribe(kinds={PodStopped})
    some: list[type[Event]] = [RunEnd, CompactDone]
    pod.subscribe(some)
    async with system.subscribe(pod=pod.name) as events:
        async for event in events:
            assert_type(event, Event)
            if isinstance(event, RunEnd):
                assert_type(event, RunEnd)
    try:
        await pod.run("hi")
    except PodStopped as error:
        assert_type(error.hint, str | None)


def all_names_come_with_a_star(event: Lagged, error: StoreError, item: UserItem, client: LLMClient) -> None:
    """Of the star import above."""
    assert_type(ScriptedClient([say("hi"), call("population", {"town": "Bergen"})]), ScriptedClient)
    assert_type(event.missed, int)
    assert_type(error.message, str)


def a_chain_takes_a_verifier_a_function_or_several(client: LLMClient) -> list[EscalationChain]:
    def judge(skill_prompt: str, task_prompt: str, output: str) -> tuple[bool, str]:
        return bool(output), f"{skill_prompt}, {task_prompt}"

    return [
        EscalationChain(["ollama/m"], local=client, verifier=FunctionVerifier(judge)),
        EscalationChain(["ollama/m"], local=client, verifier=[judge, AllOf(judge)]),
        EscalationChain(["ollama/m"], local=client, verifier=lambda _skill, _task, _output: True),
        EscalationChain(["ollama/m"], local=client, verifier=lambda _output: True),  # type: ignore[arg-type]
        EscalationChain(["ollama/m"], local=client, verifier="me"),  # type: ignore[arg-type]
    ]
