"""openai-agents: Runner with SQLiteSession, tracing off.

Its sessions commit with an fsync; if a row asks for less, their connections are configured so.
"""

import asyncio
import tempfile
from pathlib import Path

from agents import (
    Agent,
    Model,
    ModelResponse,
    OpenAIChatCompletionsModel,
    RunConfig,
    Runner,
    SQLiteSession,
    Usage,
    function_tool,
    set_tracing_disabled,
)
from harness import (
    ANSWER,
    CHUNKS,
    QUESTION,
    TURNS,
    WORDS,
    Stopwatch,
    durable,
    grown,
    imported,
    main,
    reading,
    rss,
    server,
    streams,
    timed,
    written,
)
from openai import AsyncOpenAI, DefaultAioHttpClient
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

set_tracing_disabled(True)
CONFIG = RunConfig(tracing_disabled=True)


def said(text):
    """An answer in words."""
    part = ResponseOutputText(annotations=[], text=text, type="output_text", logprobs=[])
    return ResponseOutputMessage(id="m", content=[part], role="assistant", status="completed", type="message")


class Parrot(Model):
    """Gives every request the same answer; with a tool it calls that first."""

    def __init__(self, text=ANSWER, tool=None):
        self._text = text
        self._tool = tool

    async def get_response(self, system_instructions, input, *_, **__):  # noqa: A002 - the peer's name for it
        last = input[-1] if isinstance(input, list) else {}
        if self._tool and last.get("type") != "function_call_output":
            call = ResponseFunctionToolCall(
                call_id="1", name=self._tool, arguments='{"text":"one two three"}', type="function_call"
            )
            return ModelResponse(output=[call], usage=Usage(), response_id=None)
        return ModelResponse(output=[said(self._text)], usage=Usage(), response_id=None)

    def stream_response(self, *_, **__):
        raise NotImplementedError


@function_tool
async def count_words(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


def _start(count):
    before = rss()
    with Stopwatch() as starting:
        kept = [
            (Agent(name=f"pod{number}", model=Parrot()), SQLiteSession(str(number)))
            for number in range(count)
        ]
    after = rss()
    return [
        starting.rate("starts", len(kept), "cpu"),
        reading("memory each", "B", (after - before) / count),
        reading("memory of the process", "B", after),
    ]


async def _turns(count):
    agent = Agent(name="bench", model=Parrot())
    with Stopwatch() as watch:
        for number in range(count):
            if number % TURNS == 0:
                session = SQLiteSession(f"s{number}")
            await Runner.run(agent, QUESTION, session=session, run_config=CONFIG)
    return [watch.each("time of a turn", count)]


async def _at_once(count):
    agent = Agent(name="bench", model=Parrot())
    sessions = [SQLiteSession(f"s{number}") for number in range(count)]
    with Stopwatch() as watch:
        await asyncio.gather(
            *(Runner.run(agent, QUESTION, session=session, run_config=CONFIG) for session in sessions)
        )
    return [watch.each("time of a turn", count)]


async def _tool(count):
    agent = Agent(name="bench", model=Parrot(tool="count_words"), tools=[count_words])
    with Stopwatch() as watch:
        for number in range(count):
            if number % TURNS == 0:
                session = SQLiteSession(f"s{number}")
            await Runner.run(agent, "How many words?", session=session, run_config=CONFIG)
    return [watch.each("time of a run", count)]


class UnsyncedSession(SQLiteSession):
    """A session without fsync, as in our process mode."""

    @staticmethod
    def _configure_connection(conn):
        SQLiteSession._configure_connection(conn)  # noqa: SLF001 - there is no public place for it
        conn.execute("PRAGMA synchronous = OFF")


def _durable(pods, kind):
    async def work(file, each):
        agent = Agent(name="bench", model=Parrot(WORDS))
        sessions = [kind(f"s{number}", file) for number in range(pods)]

        async def runs(session, count):
            for _ in range(count):
                await Runner.run(agent, WORDS, session=session, run_config=CONFIG)

        await asyncio.gather(*(runs(session, 1) for session in sessions))
        before = written()
        with Stopwatch() as watch:
            await asyncio.gather(*(runs(session, each) for session in sessions))
        return durable(watch, before, pods * each)

    def measure(each):
        with tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder:
            return asyncio.run(work(Path(folder, "sessions.db"), each))

    return measure


def _growth(turns):
    async def work(file):
        part = max(1, turns // 4)
        agent, session, marks = Agent(name="bench", model=Parrot(WORDS)), UnsyncedSession("long", file), []
        for _ in range(5):
            for _ in range(part):
                await Runner.run(agent, WORDS, session=session, run_config=CONFIG)
            marks.append(written())
        return grown(marks, part)

    with tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder:
        return asyncio.run(work(Path(folder, "sessions.db")))


def items(count):
    """A history of so many items."""
    words = "The quick brown fox jumps over the lazy dog. " * 8
    return [
        {"role": "user" if number % 2 == 0 else "assistant", "content": f"{number}: {words}"}
        for number in range(count)
    ]


async def _history(turns):
    agent, session = Agent(name="bench", model=Parrot()), SQLiteSession("long")
    await session.add_items(items(10_000))
    with Stopwatch() as watch:
        for _ in range(turns):
            await Runner.run(agent, QUESTION, session=session, run_config=CONFIG)
    return [watch.each("time of a turn", turns)]


async def _restore(count):
    with tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder:
        file = Path(folder, "sessions.db")
        await SQLiteSession("long", file).add_items(items(count))
        with Stopwatch() as watch:
            read = await SQLiteSession("long", file).get_items()
        assert len(read) == count
    return [watch.each("time to restore", 1)]


def _http(at_once, rhythm="each"):
    async def work(url, count):
        http = DefaultAioHttpClient(timeout=600)
        client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0, http_client=http)
        agent = Agent(name="bench", model=OpenAIChatCompletionsModel("bench", client))
        sessions = [SQLiteSession(f"s{number}") for number in range(at_once)]

        async def turn(number):
            chunks = 0
            streamed = Runner.run_streamed(agent, "Say.", session=sessions[number], run_config=CONFIG)
            async for event in streamed.stream_events():
                chunks += (
                    event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
                )
            assert chunks == CHUNKS, chunks

        readings = await timed(turn, at_once, max(1, count // at_once))
        await client.close()
        return readings

    def measure(count):
        with server(rhythm) as url:
            return asyncio.run(work(url, count))

    return measure


main(
    {
        "import/import polypod/openai-agents": imported("agents"),
        "start/10k pods/openai-agents, a session each": _start,
        "turn/one pod/openai-agents": lambda n: asyncio.run(_turns(n)),
        "turn/1000 pods at once/openai-agents": lambda n: asyncio.run(_at_once(n)),
        "tool/async tool/openai-agents": lambda n: asyncio.run(_tool(n)),
        "durable/process, one session/openai-agents": _durable(1, UnsyncedSession),
        "durable/process, 64 sessions at once/openai-agents": _durable(64, UnsyncedSession),
        "durable/power, one session/openai-agents": _durable(1, SQLiteSession),
        "durable/power, 64 sessions at once/openai-agents": _durable(64, SQLiteSession),
        "durable/a long session/openai-agents": _growth,
        "history/model in memory/openai-agents": lambda n: asyncio.run(_history(n)),
        **{
            f"restore/10,000 items{by}/openai-agents, no chain": lambda n: asyncio.run(_restore(n))
            for by in ("", ", committed by a pod")
        },
        **streams("openai-agents", _http),
    }
)
