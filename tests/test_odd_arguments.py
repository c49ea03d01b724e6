"""Arguments that nothing can be made of: an error of a type that names the argument, and never one from within."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pykka
import pytest

from actors.config.configuration import Configuration
from actors.llm.function_client import FunctionClient
from actors.llm.scripted import ScriptedClient, call, say
from actors.routing.chain.chain import EscalationChain
from actors.routing.classifier import Classifier
from actors.routing.command_verifier import CommandVerifier
from actors.routing.model_verifier import ModelVerifier
from actors.routing.pool.pool import Pool
from actors.routing.pool.settings import pod_runner
from actors.routing.warm_probe import WarmProbe
from actors.runtime.future import AsyncFuture
from actors.swarm.agents.swarm import Swarm
from actors.swarm.runners.function import runner_func
from actors.swarm.runners.local import LocalRunner
from actors.system import PodSystem
from actors.tools.hooks import arguments_for
from actors.tools.toolbox import Toolbox
from protocol.errors import InvalidInput, PodNotFound, PolypodError, RunFailed, UnknownJob
from protocol.items import ToolCall
from protocol.jobs import Job
from protocol.manifest import PodManifest
from protocol.scope import Scope


class Unwritable:
    def __repr__(self) -> str:
        raise RuntimeError("no words for it")


HUGE = 10**5000
ODD: dict[str, Any] = {
    "bytes": b"x",
    "a number": 5,
    "a huge number": HUGE,
    "half a character": "\ud800",
    "no path": "a\0b",
    "an object": Unwritable(),
    "a list": [1],
}
NUMBERS: dict[str, Any] = {"below 0": -1, "no number": float("nan"), "a text": "5", "yes": True, **ODD}
del NUMBERS["a number"]
FITS = {("prices", "a list"), ("processes", "a huge number"), ("tool_threads", "a huge number")}
OF_SYSTEM = {
    **dict.fromkeys(("outputs", "memory", "prices", "budget", "chains", "on_conflict"), ODD),
    "store": {what: value for what, value in ODD.items() if not isinstance(value, str)},
    "hooks": {what: value for what, value in ODD.items() if what != "a list"},
    **dict.fromkeys(("grace", "memory_grace", "store_grace", "passivate_after"), NUMBERS),
    **dict.fromkeys(("tool_threads", "processes"), NUMBERS),
}


def check_named(make: Callable[[], object], name: str) -> None:
    with pytest.raises((PolypodError, ValueError)) as caught:
        make()
    assert name in str(caught.value)
    assert "Exceeds the limit" not in str(caught.value)


@pytest.mark.parametrize("name", OF_SYSTEM)
def test_an_odd_argument_of_a_system_is_named(name: str) -> None:
    for what, value in OF_SYSTEM[name].items():
        if (name, what) not in FITS:
            check_named(lambda value=value: PodSystem(**{name: value}), name)


async def test_odd_arguments_of_pods_agents_and_pools_are_named(tmp_path) -> None:
    manifest, client = PodManifest.of(name="p"), FunctionClient(lambda _: "fine")
    async with PodSystem() as system:
        pod = await system.spawn(manifest, client=client)
        for value in (b"x", HUGE, Unwritable()):
            check_named(lambda value=value: system.spawn(manifest, client=value), "client")
            check_named(lambda value=value: system.spawn(manifest, client=client, tools=value), "tools")
            check_named(lambda value=value: pod.run("x", tools=value), "tools")
            check_named(lambda value=value: pod.run("x", model_settings=value), "model_settings")
            check_named(lambda value=value: system.supervise([value]), "pods")
            if value is not HUGE:
                check_named(lambda value=value: system.supervise([pod], max_restarts=value), "max_restarts")
            check_named(lambda value=value: system.supervise([pod], window_seconds=value), "window_seconds")
            with pytest.raises(TypeError, match="kind"):
                system.subscribe(kinds=[value])
            check_named(lambda value=value: system.subscribe(value), "pod")
            check_named(lambda value=value: system.interrupted(value), "pod")
            with pytest.raises(PodNotFound, match="no pod named"):
                system.get(value)
            with pytest.raises(InvalidInput, match="note"):
                await pod.approve("a", note=value)
            check_named(lambda value=value: Swarm(system, value), "root")
            check_named(lambda value=value: Swarm(system, tmp_path, runners=[value]), "runners")
            check_named(lambda value=value: Swarm(system, tmp_path, env=value), "env")
            check_named(lambda value=value: Swarm(system, tmp_path, spawn=value), "spawn")
            check_named(lambda value=value: Swarm(system, tmp_path, term_wait=value), "term_wait")
            check_named(lambda value=value: Pool(system, value), "runners")
            check_named(lambda value=value: Pool(system, {}, value), "limits")
            check_named(lambda value=value: Pool(system, queue=value), "queue")
            check_named(lambda value=value: Pool(system, cwd=value), "cwd")
            check_named(lambda value=value: Pool(system, logs=value), "logs")
        swarm, pool = Swarm(system, tmp_path / "swarm"), Pool(system)
        for value in (b"x", HUGE, Unwritable()):
            for name in ("task", "name", "model", "starter"):
                given = {"task": "x", name: value}
                check_named(lambda given=given: swarm.start(**given), name)
            check_named(lambda value=value: swarm.get(value), "beginning")
            check_named(lambda value=value: swarm.start("x", manifest=value), "manifest")
            with pytest.raises(InvalidInput, match="restart"):
                await swarm.start("x", restart=value)
            with pytest.raises(InvalidInput, match="cwd"):
                await swarm.start("x", cwd=value)
            with pytest.raises(UnknownJob):
                await pool.get(value)
            check_named(lambda value=value: pool.forget(value), "older_than")
            check_named(lambda value=value: pool.submit(Job("a", "b", on_lost=value)), "on_lost")


def fine(*_: object) -> str:
    return "fine"


async def done(_: object) -> str:
    return "done"


#: What is made without a system: how, and the argument that is odd.
MADE: dict[str, Callable[[Any], object]] = {
    "replies": ScriptedClient,
    "text": say,
    "chunks": lambda odd: say("x", chunks=odd),
    "arguments": lambda odd: call("x", odd),
    "function": FunctionClient,
    "entries": lambda odd: EscalationChain(odd, local=FunctionClient(fine), verifier=fine),
    "verify_timeout": lambda odd: EscalationChain(
        ["a"], local=FunctionClient(fine), verifier=fine, verify_timeout=odd
    ),
    "command": CommandVerifier,
    "cwd": lambda odd: CommandVerifier(["true"], cwd=odd),
    "env": lambda odd: CommandVerifier(["true"], env=odd),
    "timeout": lambda odd: CommandVerifier(["true"], timeout=odd),
    "rubric": lambda odd: ModelVerifier(FunctionClient(fine), odd),
    "warm_url": WarmProbe,
    "agents": lambda odd: Classifier(FunctionClient(fine), agents=odd),
    "tools": Toolbox,
    "hooks": lambda odd: pod_runner(PodManifest.of(), hooks=odd),
    "model": LocalRunner,
    "system": Pool,
    "path": PodManifest.load,
    "manifest": PodManifest.from_toml,
    "folder": Configuration.load,
    "directory": Scope.readable,
}


@pytest.mark.parametrize("name", MADE)
def test_an_odd_argument_of_what_needs_no_system_is_named(name: str) -> None:
    for value in (5.5, Unwritable()):
        if value != 5.5 or not name.endswith("timeout"):
            check_named(lambda value=value: MADE[name](value), name)


def test_a_text_where_a_list_is_expected_is_not_taken_letter_by_letter() -> None:
    for make in ("replies", "entries", "env", "agents", "tools", "hooks"):
        check_named(lambda make=make: MADE[make]("done"), make)
    with pytest.raises(InvalidInput, match="replies: 5 is not a reply"):
        ScriptedClient(["fine", 5])


def test_the_home_of_nobody_is_an_error_of_its_argument(tmp_path: Path) -> None:
    nobody = "~no-such-user/x"
    for name in ("outputs", "memory", "prices"):
        check_named(lambda name=name: PodSystem(**{name: nobody}), name)
    with PodSystem() as system:
        check_named(lambda: Swarm(system, nobody), "root")
        for name in ("cwd", "logs", "worktrees"):
            check_named(lambda name=name: Pool(system, **{name: nobody}), name)
        with pytest.raises(InvalidInput, match="cwd"):
            Swarm(system, tmp_path).start("x", runner_func(done), cwd=nobody).get()
        ended = Pool(system, {"p": done}).submit(Job("a", "b", agent="p", cwd=nobody)).get()
        assert ended.error is not None
        assert "no-such-user" in ended.error


async def test_odd_bounds_of_a_pods_commands_are_named_and_end_no_pod() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=FunctionClient(fine))
        await pod.run("x")
        for value in ("x", b"x", True, float("nan"), Unwritable()):
            for ask, name in (
                (pod.compact, "retained_tokens"),
                (pod.wait_for_memory_jobs, "timeout"),
                (pod.wait_for_sub_agents, "timeout"),
            ):
                with pytest.raises(InvalidInput, match=name):
                    await ask(value)
            with pytest.raises(InvalidInput, match="busy"):
                pod.run("x", busy=value)
        with pytest.raises(ValueError, match="retained_tokens"):
            await pod.compact(-1)
        for forever in (HUGE, float("inf"), -HUGE):
            assert await pod.wait_for_sub_agents(forever)
        assert (await pod.run("y")).text == "fine"


def test_an_odd_time_to_wait_is_an_error_of_its_argument() -> None:
    with PodSystem() as system:
        events = system.subscribe()
        for value in ("x", b"x", True, float("nan"), Unwritable()):
            check_named(lambda value=value: events.get(value), "timeout")
            check_named(lambda value=value: AsyncFuture().get(timeout=value), "timeout")
        with pytest.raises(pykka.Timeout):
            events.get(-1)


async def test_what_a_function_client_gives_that_cannot_be_written_is_refused_with_what_it_is() -> None:
    for value in (HUGE, Unwritable()):
        with (
            PodSystem() as system,
            pytest.raises(RunFailed, match="that cannot be shown, which is not a reply"),
        ):
            system.run(PodManifest.of(), "x", client=FunctionClient(lambda _, value=value: value)).get()


def test_what_a_hook_gives_that_cannot_be_written_is_refused_with_what_it_is() -> None:
    for value in (HUGE, Unwritable()):
        with pytest.raises(InvalidInput, match="that cannot be shown cannot replace the arguments"):
            arguments_for(ToolCall("1", "tool", {}), value)


def test_odd_arguments_of_scopes_and_profiles_are_named() -> None:
    scope, manifest = Scope.writable("/x"), PodManifest.of(name="p")
    for value in ("/x", b"x", HUGE, Unwritable(), None):
        check_named(lambda value=value: scope.permits(value, "read"), "path")
        check_named(lambda value=value: scope.permission(value), "path")
        check_named(lambda value=value: scope.permits(Path("/x"), value), "wanted")
        check_named(lambda value=value: scope.narrow(value), "scope")
        check_named(lambda value=value: manifest.merged(value, "profile.x", Path("/")), "profile.x")
    assert scope.permits(Path("/x/y"), "write")


async def test_odd_numbers_to_replay_from_are_refused() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(name="p"), client=FunctionClient(lambda _: "fine"))
        for value in ("5", 1.5, float("nan"), {"p": "x"}, {"p": None}, [1]):
            with pytest.raises(TypeError, match="since: expected"):
                pod.subscribe(since=value)
        assert pod.subscribe(since={"p": 0}).drain()
