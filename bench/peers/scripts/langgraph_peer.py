"""langgraph: langchain's agent graph with a checkpointer, tracing off, written at exit unless a case says
otherwise.

Its SQLite checkpointer commits with an fsync; if a row asks for less, its connection is configured so.
"""

import asyncio
import os
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

os.environ["LANGSMITH_TRACING"] = "false"

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
    server,
    streams,
    timed,
    written,
)
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from openai import DefaultAioHttpClient


class Parrot(BaseChatModel):
    """Gives every request the same answer; with a tool it calls that first."""

    text: str = ANSWER
    tool: str | None = None

    @property
    def _llm_type(self):
        return "parrot"

    def bind_tools(self, tools, **_):
        return self

    def _answer(self, messages):
        if self.tool and not isinstance(messages[-1], ToolMessage):
            call = {"name": self.tool, "args": {"text": "one two three"}, "id": "1", "type": "tool_call"}
            return ChatResult(generations=[ChatGeneration(message=AIMessage(content="", tool_calls=[call]))])
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content=self.text))])

    def _generate(self, messages, stop=None, run_manager=None, **_):
        return self._answer(messages)

    async def _agenerate(self, messages, stop=None, run_manager=None, **_):
        return self._answer(messages)


@tool
async def count_words(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


def config(thread):
    """The configuration that names a session."""
    return {"configurable": {"thread_id": str(thread)}}


def said(text):
    """The input of a run."""
    return {"messages": [{"role": "user", "content": text}]}


async def _turns(count, model, metric, tools=()):
    graph = create_agent(model, list(tools), checkpointer=InMemorySaver())
    with Stopwatch() as watch:
        for number in range(count):
            await graph.ainvoke(said(QUESTION), config(number // TURNS), durability="exit")
    return [watch.each(metric, count)]


async def _at_once(count):
    graph = create_agent(Parrot(), [], checkpointer=InMemorySaver())
    with Stopwatch() as watch:
        await asyncio.gather(
            *(graph.ainvoke(said(QUESTION), config(number), durability="exit") for number in range(count))
        )
    return [watch.each("time of a turn", count)]


@asynccontextmanager
async def saver_at(file, synced):
    """The checkpointer with its default settings, or without fsync, as in our process mode."""
    async with AsyncSqliteSaver.from_conn_string(file) as saver:
        await saver.setup()
        if not synced:
            await saver.conn.execute("PRAGMA synchronous = OFF")
        yield saver


def _durable(pods, durability, synced):
    async def work(file, each):
        async with saver_at(file, synced) as saver:
            graph = create_agent(Parrot(text=WORDS), [], checkpointer=saver)

            async def runs(thread, count):
                for _ in range(count):
                    await graph.ainvoke(said(WORDS), config(thread), durability=durability)

            await asyncio.gather(*(runs(thread, 1) for thread in range(pods)))
            before = written()
            with Stopwatch() as watch:
                await asyncio.gather(*(runs(thread, each) for thread in range(pods)))
            return durable(watch, before, pods * each)

    def measure(each):
        with tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder:
            return asyncio.run(work(str(Path(folder, "sessions.db")), each))

    return measure


def _growth(durability):
    async def work(file, turns):
        part = max(1, turns // 4)
        async with saver_at(file, False) as saver:
            graph = create_agent(Parrot(text=WORDS), [], checkpointer=saver)
            marks = []
            for _ in range(5):
                for _ in range(part):
                    await graph.ainvoke(said(WORDS), config("long"), durability=durability)
                marks.append(written())
        return grown(marks, part)

    def measure(turns):
        with tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder:
            return asyncio.run(work(str(Path(folder, "sessions.db")), turns))

    return measure


def messages(count):
    """A history of so many items."""
    words = "The quick brown fox jumps over the lazy dog. " * 8
    return [
        (HumanMessage if number % 2 == 0 else AIMessage)(content=f"{number}: {words}")
        for number in range(count)
    ]


async def _history(turns):
    graph = create_agent(Parrot(), [], checkpointer=InMemorySaver())
    await graph.aupdate_state(config("long"), {"messages": messages(10_000)}, as_node="model")
    with Stopwatch() as watch:
        for _ in range(turns):
            await graph.ainvoke(said(QUESTION), config("long"), durability="exit")
    return [watch.each("time of a turn", turns)]


async def _restore(count):
    with tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder:
        file = str(Path(folder, "sessions.db"))
        async with AsyncSqliteSaver.from_conn_string(file) as saver:
            graph = create_agent(Parrot(), [], checkpointer=saver)
            await graph.aupdate_state(config("long"), {"messages": messages(count)}, as_node="model")
        async with AsyncSqliteSaver.from_conn_string(file) as saver:
            graph = create_agent(Parrot(), [], checkpointer=saver)
            with Stopwatch() as watch:
                state = await graph.aget_state(config("long"))
        assert len(state.values["messages"]) == count
    return [watch.each("time to restore", 1)]


def _http(at_once, rhythm="each"):
    async def work(url, count):
        http = DefaultAioHttpClient(timeout=600)
        model = ChatOpenAI(
            model="bench", base_url=url, api_key="none", max_retries=0, streaming=True, http_async_client=http
        )
        graph = create_agent(model, [], checkpointer=InMemorySaver())

        async def turn(number):
            chunks = 0
            async for chunk, _ in graph.astream(
                said("Say."), config(number), stream_mode="messages", durability="exit"
            ):
                chunks += bool(chunk.content)
            assert chunks >= CHUNKS, chunks

        readings = await timed(turn, at_once, max(1, count // at_once))
        await http.aclose()
        return readings

    def measure(count):
        with server(rhythm) as url:
            return asyncio.run(work(url, count))

    return measure


main(
    {
        "import/import polypod/langgraph": imported("langchain.agents, langgraph.checkpoint.memory"),
        "turn/one pod/langgraph": lambda n: asyncio.run(_turns(n, Parrot(), "time of a turn")),
        "turn/1000 pods at once/langgraph": lambda n: asyncio.run(_at_once(n)),
        "tool/async tool/langgraph": lambda n: asyncio.run(
            _turns(n, Parrot(tool="count_words"), "time of a run", [count_words])
        ),
        **{
            f"durable/{mode}, {sessions}/langgraph, {words}": _durable(pods, durability, mode == "power")
            for mode in ("process", "power")
            for pods, sessions in ((1, "one session"), (64, "64 sessions at once"))
            for durability, words in (("sync", "sync"), ("exit", "at exit"))
        },
        "durable/a long session/langgraph, at exit": _growth("exit"),
        "history/model in memory/langgraph": lambda n: asyncio.run(_history(n)),
        **{
            f"restore/10,000 items{by}/langgraph, no chain": lambda n: asyncio.run(_restore(n))
            for by in ("", ", committed by a pod")
        },
        **streams("langgraph", _http),
    }
)
