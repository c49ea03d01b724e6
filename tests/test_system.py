"""PodSystem: entered both ways, names, registries of their own, ends."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from effort import times

from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.client_factory import ClientFactory
from actors.pod.handle import Pod
from actors.sessions.memory.store import MemoryStore
from actors.sessions.urls import open_store
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.errors import (
    InvalidInput,
    ManifestError,
    MissingKey,
    NameTaken,
    PodNotFound,
    ScriptLeftover,
    SessionNotFound,
    StoreError,
    SystemNotRunning,
    ToolDefinitionError,
    UnknownApproval,
    WouldDeadlock,
)
from protocol.errors import PodStopped as StoppedError
from protocol.events import Alert, PodStarted, PodStopped, RunEnd
from protocol.manifest import PodManifest, PodSection


def test_the_same_program_works_without_an_event_loop() -> None:
    with PodSystem() as system:
        pod = system.spawn(PodManifest.of(name="a"), client=ScriptedClient([say("hello")])).get(timeout=60)
        with pod.subscribe(RunEnd) as events:
            assert pod.run("hi").get(timeout=60).text == "hello"
            assert isinstance(events.get(timeout=60), RunEnd)
        assert type(system.subscribe("a", since=0).drain()[0]) is PodStarted


async def test_a_system_with_a_thread_of_its_own_works_inside_a_running_loop() -> None:
    with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([say("a"), say("b")]))
        assert (await pod.run("1")).text == "a"
        assert pod.run("2").get(timeout=60).text == "b"


async def test_waiting_on_the_loop_that_has_to_answer_is_refused() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([say("a")]))
        run = pod.run("1")
        with pytest.raises(WouldDeadlock):
            run.get(timeout=60)
        assert (await run).text == "a"


async def test_futures_are_taken_by_gather_wait_for_and_ensure_future() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([say("a"), say("b"), say("c")]))
        first, second = await asyncio.gather(pod.run("1"), asyncio.ensure_future(pod.run("2")))
        third = await asyncio.wait_for(pod.run("3"), 60)
        assert [first.text, second.text, third.text] == ["a", "b", "c"]


async def test_work_goes_on_when_its_awaiter_is_gone() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([say("a")]))
        with pod.subscribe(RunEnd) as events:
            waiting = asyncio.ensure_future(pod.run("1"))
            await asyncio.sleep(0)
            waiting.cancel()
            end = await anext(events)
        assert isinstance(end, RunEnd)
        assert end.outcome == "finished"


async def test_an_explicit_name_is_taken_once_and_a_manifests_name_gets_a_number() -> None:
    async with PodSystem() as system:
        manifest = PodManifest.of(name="a")
        pods = [await system.spawn(manifest, client=ScriptedClient([])) for _ in range(3)]
        assert [pod.name for pod in pods] == ["a", "a-2", "a-3"]
        with pytest.raises(NameTaken):
            await system.spawn(manifest, client=ScriptedClient([]), name="a-2")
        assert system.get("a-3") is pods[2]
        await pods[0].stop()
        with pytest.raises(PodNotFound):
            system.get("a")
        assert system.pods() == pods[1:]


async def test_two_systems_in_one_process_do_not_see_each_other() -> None:
    async with PodSystem() as one, PodSystem() as two:
        await one.spawn(PodManifest.of(name="a"), client=ScriptedClient([]))
        assert two.pods() == []
        await two.spawn(PodManifest.of(name="a"), client=ScriptedClient([]), name="a")


def test_a_system_that_is_not_entered_or_was_left_says_so() -> None:
    system = PodSystem()
    with pytest.raises(SystemNotRunning, match="not entered"):
        system.spawn(PodManifest.of())
    system.stop().get(timeout=60)
    with PodSystem() as left:
        pass
    with pytest.raises(SystemNotRunning, match="left"):
        left.spawn(PodManifest.of())


def test_stop_is_idempotent_and_may_come_before_the_exit() -> None:
    async def main() -> None:
        async with PodSystem() as system:
            pod = await system.spawn(PodManifest.of(name="a"), client=ScriptedClient([]))
            with system.subscribe() as events:
                await asyncio.gather(system.stop(), system.stop())
                assert [isinstance(e, PodStopped) for e in events.drain() if e.durable] == [True]
            assert not pod.ref.is_alive()

    asyncio.run(main())
    with PodSystem() as system:
        system.stop().get(timeout=60)


def test_replies_left_in_a_script_are_reported_at_the_exit() -> None:
    async def leftover() -> None:
        async with PodSystem() as system:
            await system.spawn(PodManifest.of(), client=ScriptedClient([say("unused")]))

    with pytest.raises(ScriptLeftover, match="1 of 1"):
        asyncio.run(leftover())

    async def failing() -> None:
        async with PodSystem() as system:
            await system.spawn(PodManifest.of(), client=ScriptedClient([say("unused")]))
            raise KeyError("first")

    with pytest.raises(KeyError, match="first"):
        asyncio.run(failing())


async def test_a_session_that_is_not_there_is_an_error_and_no_pod_is_left() -> None:
    async with PodSystem() as system:
        with pytest.raises(SessionNotFound):
            await system.spawn(PodManifest.of(name="a"), client=ScriptedClient([]), resume="nowhere")
        assert system.pods() == []
        with pytest.raises(SessionNotFound):
            system.subscribe("nobody", since=0)


async def test_a_model_that_is_unknown_or_lacks_its_key_is_refused_at_spawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    async with PodSystem() as system:
        with pytest.raises(ManifestError, match="'nonesuch'"):
            await system.spawn(PodManifest.of(model="nonesuch/x"))
        with pytest.raises(MissingKey, match="OPENAI_API_KEY"):
            await system.spawn(PodManifest.of(model="openai/x"))
        with pytest.raises(MissingKey, match="MY_KEY"):
            await system.spawn(PodManifest.of(model="ollama/x", api_key_env="MY_KEY"))


def test_a_session_outlives_its_system(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'pods.db'}"

    async def first() -> str:
        async with PodSystem(url) as system:
            pod = await system.spawn(PodManifest.of(name="a"), client=ScriptedClient([say("one")]))
            return (await pod.run("1")).session_id

    async def second(session: str) -> None:
        async with PodSystem(url) as system:
            pod = await system.spawn(
                PodManifest.of(name="a"), client=ScriptedClient([say("two")]), resume=session
            )
            await pod.run("2")
            assert [item.text for item in await pod.history()] == ["1", "one", "2", "two"]
            starts = system.subscribe("a", PodStarted, since=0).drain()
            assert [e.resumed for e in starts if isinstance(e, PodStarted)] == [False, True]

    asyncio.run(second(asyncio.run(first())))


async def test_thresholds_in_the_wrong_order_are_reported_as_an_alert() -> None:
    async with PodSystem() as system:
        manifest = PodManifest.of(name="a", compact_threshold=200, compact_request_threshold=100)
        await system.spawn(manifest, client=ScriptedClient([]))
        alerts = system.subscribe("a", Alert, since=0).drain()
        assert ["swap the two" in a.text for a in alerts if isinstance(a, Alert)] == [True]


def test_a_thousand_pods_run_at_once_and_leave_nothing_behind() -> None:
    @tool
    async def look() -> str:
        return "seen"

    async def main() -> None:
        async with PodSystem() as system:
            manifest = PodManifest.of(name="p")
            pods = [
                await system.spawn(manifest, client=ScriptedClient([call("look"), say(str(n))]), tools=[look])
                for n in range(1000)
            ]
            results = await asyncio.gather(*(pod.run("go") for pod in pods))
            assert [r.text for r in results] == [str(n) for n in range(1000)]

    before = threading.active_count()
    asyncio.run(main())
    assert threading.active_count() == before


@pytest.mark.timeout(120)
def test_idle_pods_start_and_stop_in_one_process_ten_thousand_of_them_or_ten_times_that() -> None:
    async def main() -> None:
        client = ScriptedClient([])
        async with PodSystem(MemoryStore()) as system:
            manifest = PodManifest.of(name="p")
            for _ in range(times(10_000)):
                await system.spawn(manifest, client=client)
            assert len(system.pods()) == times(10_000)
        assert system.pods() == []

    gc.disable()  # it would look at the same pods again and again
    try:
        asyncio.run(main())
    finally:
        gc.enable()
    gc.collect()


def test_two_threads_that_stop_a_system_wait_for_one_stop() -> None:
    with PodSystem() as system:
        system.spawn(PodManifest.of(), client=ScriptedClient([])).get(timeout=60)
        together = threading.Barrier(4)

        def stop() -> None:
            together.wait()
            system.stop().get(timeout=60)
            ended.append(True)

        ended: list[bool] = []
        threads = [threading.Thread(target=stop) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ended == [True] * 4


async def test_a_store_is_closed_though_a_client_cannot_be(tmp_path: Path) -> None:
    class Unclosable(ClientFactory):
        async def aclose(self) -> None:
            raise OSError("the socket is gone")

    async def use(system: PodSystem) -> None:
        async with system:
            assert system._entered is not None
            system._entered.assembly.clients = Unclosable()
            await system.spawn(PodManifest.of(), client=ScriptedClient([]))

    system = PodSystem(f"sqlite:{tmp_path / 'pods.db'}")
    with pytest.raises(OSError, match="socket is gone"):
        await use(system)
    assert system._entered is not None
    with pytest.raises(StoreError, match="closed"):
        system._entered.store.sessions()


def test_what_to_do_on_a_conflict_is_fork_or_refuse() -> None:
    with pytest.raises(ValueError, match="'ask'"):
        PodSystem(on_conflict="ask")  # type: ignore[arg-type]


async def test_a_system_that_is_not_running_has_no_events() -> None:
    system = PodSystem()
    with pytest.raises(SystemNotRunning):
        system.subscribe()
    with system:
        pod = system.spawn(PodManifest.of(), client=ScriptedClient([])).get(timeout=60)
    with pytest.raises(SystemNotRunning):
        system.subscribe(since=0)
    assert pod.subscribe().drain() == []

    with pytest.raises(StoppedError):
        await anext(pod.stream("hello?"))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.12 brought tasks that start at once")
def test_pods_live_on_a_loop_whose_tasks_start_at_once():
    async def play():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        client = ScriptedClient([call("add", {"a": 1, "b": 2}), say("three"), say("again")])
        async with PodSystem() as system:
            pod = await system.spawn(PodManifest.of(name="a"), client=client, tools=[add])
            first = await pod.run("go")
            return first.text, (await pod.run("go on")).text

    async def add(a: int, b: int) -> int:
        return a + b

    assert asyncio.run(play()) == ("three", "again")


def test_tools_that_are_equal_today_are_still_each_of_its_own_pod() -> None:
    @dataclass
    class Notebook:
        __name__ = "note"
        notes: list[str] = field(default_factory=list)

        def __call__(self, text: str) -> str:
            self.notes.append(text)
            return "noted"

    books = [Notebook(), Notebook()]

    async def main() -> None:
        client = ScriptedClient([call("note", {"text": "mine"}, id="1"), say("done")])
        async with PodSystem() as system:
            manifest = PodManifest.of(name="p")
            _, second = [await system.spawn(manifest, client=client, tools=[book]) for book in books]
            await second.run("go")

    asyncio.run(main())
    assert [book.notes for book in books] == [[], ["mine"]]


@pytest.mark.parametrize("url", ["sqlite:{}/pods.db", "jsonl:{}"])
def test_memory_is_kept_beside_the_sessions_unless_asked(tmp_path, url):
    found = call(
        "write_extracted",
        {"decisions": [], "discussions": [], "attempts": [], "requests": [{"intent": "x", "summary": "y"}]},
    )

    async def play():
        async with PodSystem(url.format(tmp_path)) as system:
            wanted = PodManifest.of(name="a", extract_threshold=1)
            pod = await system.spawn(wanted, client=ScriptedClient([say("a"), found, say("done")]))
            await pod.run("remember this")
            assert await pod.wait_for_memory_jobs(timeout=60)

    asyncio.run(play())
    assert [path.suffix for path in (tmp_path / "memory" / "staging").iterdir()] == [".json"]


@pytest.mark.parametrize(
    "name", ["../../x y\n", "", ".", "..", "a/b", "a b", "x\n", "a\0", "\ud800", "x" * 300, 5]
)
async def test_a_name_that_no_pod_can_have_is_refused_wherever_it_comes_in(name):
    async with PodSystem() as system:
        with pytest.raises(ManifestError, match="letters, digits"):
            await system.spawn(PodManifest.of(), name=name)
        with pytest.raises(ManifestError, match="letters, digits"):
            await system.spawn(PodManifest(pod=PodSection(name=name)))
        with pytest.raises(ManifestError):
            PodManifest.of(name=name)
        assert system.pods() == []


async def test_a_pod_may_be_called_by_an_address():
    async with PodSystem() as system:
        for name in ("reader+1@example.com", "o'neill@xn--bcher-kva.example", "bücher"):
            assert (await system.spawn(PodManifest.of(name=name))).name == name
            assert (await system.spawn(PodManifest.of(), name=f"x-{name}")).name == f"x-{name}"


@pytest.mark.parametrize("given", [False, True], ids=["a store of its own", "a store that was given"])
@pytest.mark.parametrize("kind", ["sqlite", "jsonl"])
def test_a_session_whose_event_loop_was_closed_in_mid_run_can_be_resumed_in_the_same_process(
    tmp_path: Path, kind: str, *, given: bool
) -> None:
    url = f"sqlite:{tmp_path / 'a.db'}" if kind == "sqlite" else f"jsonl:{tmp_path}"
    store = open_store(url) if given else url

    async def left_in_mid_run() -> tuple[PodSystem, Pod]:
        begun = asyncio.Event()

        @tool
        async def hangs() -> None:
            begun.set()
            await asyncio.Event().wait()

        system = await PodSystem(store).__aenter__()
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([call("hangs")]), tools=[hangs])
        pod.run("go")
        await begun.wait()
        return system, pod

    async def resumed(session_id: str) -> str:
        async with PodSystem(store) as system:
            assert [info.session_id for info in await system.interrupted()] == [session_id]
            client = ScriptedClient([say("done")])
            pod = await system.spawn(PodManifest.of(), client=client, resume=session_id)
            return (await pod.resume()).text

    loop = asyncio.new_event_loop()
    system, _pod = loop.run_until_complete(left_in_mid_run())
    (info,) = system.store.sessions()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop.close()
    assert asyncio.run(resumed(info.session_id)) == "done"
    if not isinstance(store, str):
        store.close()


def test_who_spawns_what_cannot_be_from_another_thread_gets_the_error_and_does_not_wait_for_ever(
    tmp_path: Path,
) -> None:
    with PodSystem(f"sqlite:{tmp_path}/pods.db") as system:
        with pytest.raises(InvalidInput, match="resume: expected the id of a session, got 5"):
            system.spawn(PodManifest.of(), resume=5)  # type: ignore[arg-type]
        for process in (False, True):
            with pytest.raises(AttributeError):
                system.spawn(PodManifest(pod=None), process=process).get(timeout=60)  # type: ignore[arg-type]


def test_an_answer_to_what_is_no_id_of_an_approval_is_an_error() -> None:
    with PodSystem() as system:
        for answer in (system.approve, system.deny):
            with pytest.raises(UnknownApproval):
                answer(None).get(timeout=60)  # type: ignore[arg-type]


def test_since_is_a_number_or_names_with_numbers() -> None:
    with PodSystem() as system, pytest.raises(TypeError, match="since: expected the number of an entry"):
        system.subscribe(since="3")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["sqlite", "jsonl", "memory"])
def test_an_id_that_cannot_be_encoded_is_no_sessions(tmp_path: Path, kind: str) -> None:
    store = {"sqlite": f"sqlite:{tmp_path / 'a.db'}", "jsonl": f"jsonl:{tmp_path}", "memory": "memory:"}[kind]
    with PodSystem(store) as system:
        for exact in (False, True):
            with pytest.raises(SessionNotFound):
                system.spawn(PodManifest.of(), resume="\ud800", exact=exact).get(timeout=60)


class Unwritable:
    def __repr__(self) -> str:
        raise ValueError("a repr of its own that fails")


@pytest.mark.parametrize(
    ("manifest", "given", "says"),
    [
        (
            PodManifest.of(),
            {"session": Unwritable()},
            "printable letters, got an Unwritable that cannot be shown",
        ),
        ("hi", {}, r"manifest: expected a PodManifest, got 'hi' \(create one with PodManifest.of"),
        (PodManifest.of(), {"tools": len}, r"tools: expected a list.*write tools=\[…\]"),
        (PodManifest.of(), {"tools": "files"}, "tools: expected a list"),
        (PodManifest.of(), {"hooks": 5}, "hooks: expected a list"),
        (PodManifest.of(), {"client": ScriptedClient}, "is not a client .*a method stream"),
        (PodManifest.of(), {"client": "openai"}, "is not a client .*process=True"),
    ],
)
async def test_what_is_none_of_a_pods_parts_is_refused_with_words(manifest, given, says):
    async with PodSystem() as system:
        with pytest.raises(InvalidInput, match=says):
            system.spawn(manifest, **given)


async def test_a_run_of_nothing_and_a_kind_that_is_a_name_are_refused_with_words():
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([]))
        for content in (None, 5):
            with pytest.raises(InvalidInput, match=f"content: expected a string, .*, got {content}"):
                pod.run(content)
        with pytest.raises(InvalidInput, match=r"'temperature'; pass it in model_settings=.*output_val"):
            pod.run("hi", temperature=1)
        with pytest.raises(TypeError, match="not a kind of event: 'RunEnd'"):
            system.subscribe(kinds=["RunEnd"])
        with pytest.raises(TypeError, match="not a kind of event: an Unwritable that cannot be shown"):
            system.subscribe(kinds=[Unwritable()])
        with pytest.raises(ToolDefinitionError, match="an Unwritable that cannot be shown cannot be a tool"):
            await system.spawn(PodManifest.of(), client=ScriptedClient([]), tools=[Unwritable()])
