"""A tool that ends when nobody waits for it any more, and its pod has no history, or no session, to write that in."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from pod_stage import PLAIN, texts

from actors.llm.scripted import ScriptedClient, call, say
from actors.pod.handle import Pod
from actors.sessions.memory.store import MemoryStore
from actors.sessions.replay import replay
from actors.system import PodSystem
from actors.tools.base import Tool, tool
from protocol.events import Alert, RunEnd, SessionForked

LATE = "ended with a result after the pod had stopped waiting for it: late"


class Slow:
    """A plain function that goes on in its thread until it is let go."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.release = threading.Event()

    def tool(self) -> Tool:
        loop = asyncio.get_running_loop()

        @tool
        def slow() -> str:
            loop.call_soon_threadsafe(self.begun.set)
            self.release.wait()
            return "late"

        return slow


@pytest.fixture
def slow() -> Iterator[Slow]:
    work = Slow()
    yield work
    work.release.set()  # whatever came of the test, its thread ends


def leave_behind(
    slow: Slow,
    play: Callable[[PodSystem, Pod, str], Coroutine[Any, Any, None]],
    store: MemoryStore | None = None,
) -> None:
    """Play with a pod that has cancelled a run and left its tool behind; it gets the session too."""

    async def main() -> None:
        client = ScriptedClient([call("slow"), say("again")])
        async with asyncio.timeout(60), PodSystem(store or MemoryStore(), grace=0.01) as system:
            pod = await system.spawn(PLAIN, client=client, tools=[slow.tool()])
            run = pod.run("go")
            await slow.begun.wait()
            await pod.cancel()
            result = await run
            assert result.outcome == "cancelled"
            await play(system, pod, result.session_id)

    asyncio.run(main())


async def late_alert(events: Any) -> Alert:
    async for event in events:
        if LATE in event.text:
            assert isinstance(event, Alert)
            return event
    raise AssertionError


def test_a_late_end_is_written_behind_the_history_that_a_passive_pod_gave_back(slow: Slow) -> None:
    async def play(system: PodSystem, pod: Pod, session: str) -> None:
        before = texts(await pod.history())
        assert await pod.passivate()
        with pod.subscribe(Alert) as events:
            slow.release.set()
            published = await late_alert(events)
        assert published.session_id == session
        assert texts(await pod.history()) == before
        result = await pod.run("and now")
        assert (result.text, result.session_id) == ("again", session)
        assert texts(replay(system.store.read(session)).items) == [*before, "and now", "again"]

    leave_behind(slow, play)


def test_a_late_end_while_the_history_is_read_back_waits_for_it(slow: Slow) -> None:
    async def play(system: PodSystem, pod: Pod, session: str) -> None:
        before = texts(await pod.history())
        assert await pod.passivate()
        with pod.subscribe(Alert) as events:
            asked = pod.history()  # begins to read it back
            slow.release.set()
            assert texts(await asked) == before
            await late_alert(events)
        result = await pod.run("and now")
        assert (result.text, result.session_id) == ("again", session)
        assert texts(await pod.history()) == [*before, "and now", "again"]

    leave_behind(slow, play)


def test_a_late_end_of_a_pod_whose_session_was_taken_is_written_in_a_fork_with_its_whole_history(
    slow: Slow,
) -> None:
    async def play(system: PodSystem, pod: Pod, session: str) -> None:
        before = texts(await pod.history())
        assert await pod.passivate()
        system.store.release(session)
        thief = await system.spawn(PLAIN, name="thief", client=ScriptedClient([say("mine")]), resume=session)
        await thief.run("taken")
        theirs = system.store.read(session)
        with pod.subscribe([Alert, SessionForked]) as events:
            slow.release.set()
            published = await late_alert(event async for event in events if isinstance(event, Alert))
        assert system.store.read(session) == theirs, "nothing is written in a session that is another's"
        assert published.session_id != session
        kept = replay(system.store.read(published.session_id))
        assert texts(kept.items) == before
        assert kept.open_run is None
        assert (await pod.run("and now")).session_id == published.session_id
        await pod.stop()
        again = await system.spawn(
            PLAIN, name="again", client=ScriptedClient([say("b")]), resume=published.session_id
        )
        assert texts(await again.history()) == [*before, "and now", "again"]
        assert (await again.run("more")).text == "b"

    leave_behind(slow, play)


def test_a_pod_that_gave_its_session_up_writes_nothing_when_its_tool_ends(slow: Slow) -> None:
    published = asyncio.Event()

    class Watching(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if LATE in record.getMessage():
                published.set()

    async def play(system: PodSystem, pod: Pod, session: str) -> None:
        await pod.run("and now")
        await pod.stop()
        other = await system.spawn(PLAIN, name="other", client=ScriptedClient([say("b")]), resume=session)
        before = system.store.read(session)
        slow.release.set()
        await published.wait()
        await other.describe()
        assert system.store.read(session) == before
        with other.subscribe([RunEnd, Alert]) as events:
            assert (await other.run("more")).text == "b"
            assert [type(event) for event in events.drain()] == [RunEnd]

    logger, handler = logging.getLogger("polypod.tools"), Watching()
    logger.addHandler(handler)
    try:
        leave_behind(slow, play)
    finally:
        logger.removeHandler(handler)
