"""casty: virtual actors whose state is kept in its SQL store; no model, and no history but a list in the
state.
"""

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path

from casty import ActorSystem, Askable, Context, actor, stores
from harness import TURNS, WORDS, Stopwatch, durable, main, written


@dataclass(frozen=True)
class Say(Askable[str]):
    """A user's words."""

    text: str


@actor(initial=(), durable="write")
async def talker(ctx: Context[tuple[str, ...], Say]) -> None:
    """Keeps the last turns, with what was said and answered: each write is of the whole state."""
    async for message in ctx.inbox:
        said = (*ctx.state.value, message.text, WORDS)[-2 * TURNS :]
        await ctx.state.set(said)
        message.reply_to.tell(WORDS)


async def _talk(ref, count):
    for _ in range(count):
        assert await ref.ask(Say(WORDS)) == WORDS


def _durable(sessions):
    async def work(file, each):
        async with (
            stores.SQL(f"sqlite://{file}?mode=rwc") as store,
            ActorSystem(store=store) as system,
        ):
            refs = [system.ref(talker, f"s{number}") for number in range(sessions)]
            await asyncio.gather(*(_talk(ref, 1) for ref in refs))
            before = written()
            with Stopwatch() as watch:
                await asyncio.gather(*(_talk(ref, each) for ref in refs))
            return durable(watch, before, sessions * each)

    def measure(each):
        with tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder:
            return asyncio.run(work(Path(folder, "sessions.db"), each))

    return measure


main(
    {
        "durable/power, one session/casty, no model": _durable(1),
        "durable/power, 64 sessions at once/casty, no model": _durable(64),
    }
)
