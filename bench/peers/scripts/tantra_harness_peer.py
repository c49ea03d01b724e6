"""tantra-harness: its runtime, an actor with a journal each, and its SQLite store."""

import asyncio
import tempfile
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

from harness import WORDS, Stopwatch, durable, grown, main, written
from tantra import Agent, Runtime, SQLiteStore
from tantra.providers.base import ModelLimits, StreamEnd, TextDelta

LIMITS = ModelLimits(context_window=10_000_000, max_output=64_000)


class Parrot:
    """Gives every request the same answer."""

    provider_name = "parrot"

    def limits(self, model):
        return LIMITS

    async def stream(self, request):
        yield TextDelta(text=WORDS)
        yield StreamEnd(text=WORDS, finish_reason="stop")


class UnsyncedStore(SQLiteStore):
    """A store without fsync, as in our process mode."""

    @contextmanager
    def _connect(self):
        with super()._connect() as connection:
            connection.execute("PRAGMA synchronous = OFF")
            yield connection


class Talker(Agent):
    """An agent without tools."""

    model = "parrot"


async def _talk(connection, count):
    for _ in range(count):
        result = await connection.prompt(WORDS, command_id=uuid4())
        assert result.text == WORDS


async def _open(stack, file, kind, sessions):
    store = kind(file)
    await store.setup()
    runtime = Runtime(Parrot(), store, [Talker])
    stack.push_async_callback(runtime.aclose)
    return [
        await stack.enter_async_context(runtime.connect(await runtime.create(Talker), writable=True))
        for _ in range(sessions)
    ]


def _durable(sessions, kind):
    async def work(file, each):
        async with AsyncExitStack() as stack:
            opened = await _open(stack, file, kind, sessions)
            await asyncio.gather(*(_talk(connection, 1) for connection in opened))
            before = written()
            with Stopwatch() as watch:
                await asyncio.gather(*(_talk(connection, each) for connection in opened))
            return durable(watch, before, sessions * each)

    def measure(each):
        with tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder:
            return asyncio.run(work(Path(folder, "sessions.db"), each))

    return measure


def _growth(turns):
    async def work(file):
        part, marks = max(1, turns // 4), []
        async with AsyncExitStack() as stack:
            [connection] = await _open(stack, file, UnsyncedStore, 1)
            for _ in range(5):
                await _talk(connection, part)
                marks.append(written())
        return grown(marks, part)

    with tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder:
        return asyncio.run(work(Path(folder, "sessions.db")))


main(
    {
        "durable/process, one session/tantra-harness": _durable(1, UnsyncedStore),
        "durable/process, 64 sessions at once/tantra-harness": _durable(64, UnsyncedStore),
        "durable/power, one session/tantra-harness": _durable(1, SQLiteStore),
        "durable/power, 64 sessions at once/tantra-harness": _durable(64, SQLiteStore),
        "durable/a long session/tantra-harness": _growth,
    }
)
