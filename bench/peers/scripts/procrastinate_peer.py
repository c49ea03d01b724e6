"""procrastinate: its queue of jobs in Postgres, and one worker with 256 of them at once."""

import asyncio

import procrastinate
from harness import WORDS, jobs, main
from postgres import postgres

_LIMIT = 256


async def _work(url, spent, count):
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))

    @app.task(name="instant")
    async def instant(words):
        return "done"

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        with jobs(count, spent) as watch:
            await instant.batch_defer_async(*({"words": WORDS[:200]} for _ in range(count)))
            await app.run_worker_async(
                concurrency=_LIMIT, wait=False, install_signal_handlers=False, listen_notify=False
            )
        done = await app.job_manager.list_jobs_async(status="succeeded")
        assert len(list(done)) == count
    return watch.readings


def _measure(mode):
    def measure(count):
        with postgres(mode) as (url, spent):
            return asyncio.run(_work(url, spent, count))

    return measure


main(
    {
        "pool/in a SQLite file/procrastinate, in Postgres": _measure("process"),
        "pool/in a SQLite file, power/procrastinate, in Postgres": _measure("power"),
    }
)
