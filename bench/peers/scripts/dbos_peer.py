"""DBOS: its queue of durable workflows, in SQLite and in Postgres, with 256 of them at once."""

import asyncio
import tempfile
from contextlib import contextmanager

import sqlalchemy
from dbos import DBOS
from harness import WORDS, jobs, main
from postgres import postgres

_LIMIT = 256


@DBOS.workflow()
async def instant(words):
    """Do nothing: the workflow only starts and ends."""
    return "done"


async def _done():
    """Wait until all ends are durable, without reading each of them back, which would take as long again."""
    while await DBOS.list_workflows_async(status=["ENQUEUED", "PENDING"], limit=1):  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def _work(url, spent, count):
    config = {"name": "bench", "system_database_url": url, "log_level": "ERROR"}
    DBOS(config=config)
    DBOS.launch()
    try:
        await DBOS.register_queue_async("q", worker_concurrency=_LIMIT, polling_interval_sec=0.01)
        with jobs(count, spent) as watch:
            enqueued = (DBOS.enqueue_workflow_async("q", instant, WORDS[:200]) for _ in range(count))
            await asyncio.gather(*enqueued)
            await _done()
    finally:
        DBOS.destroy()
    return watch.readings


def _leave_unsynced(connection, _):
    """Turn fsync off, as in our process mode."""
    connection.execute("PRAGMA synchronous = OFF")


@contextmanager
def _sqlite(mode):
    if mode == "process" and not sqlalchemy.event.contains(sqlalchemy.Engine, "connect", _leave_unsynced):
        sqlalchemy.event.listen(sqlalchemy.Engine, "connect", _leave_unsynced)
    with tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder:
        yield f"sqlite:///{folder}/dbos.db", lambda: 0.0


def _measure(store, mode):
    def measure(count):
        with store(mode) as (url, spent):
            return asyncio.run(_work(url, spent, count))

    return measure


main(
    {
        f"pool/in a SQLite file{case}/DBOS, in {where}": _measure(store, mode)
        for case, mode in (("", "process"), (", power", "power"))
        for where, store in (("SQLite", _sqlite), ("Postgres", postgres))
    }
)
