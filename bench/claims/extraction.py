"""Claim: the cost of reading a history for what is worth keeping, however long it is."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import msgspec

from actors.llm.base import Request
from actors.system import PodSystem
from bench.claim import Claim, Measure, at_most
from bench.histories import items
from bench.measure import Holds, Stopwatch
from bench.models import Caller, manifest
from bench.results import Reading
from protocol.items import Item, ToolResult
from protocol.wire import encode

CLAIM = Claim("extraction", "extraction: a detached actor reads what is new in a history and notes it")

_NEW = 8
_FOUND = {
    "decisions": [{"chosen": "SQLite", "rationale": "one file"}],
    "discussions": [],
    "attempts": [],
    "requests": [],
}
_PAYLOAD = msgspec.json.encode(_FOUND).decode()


async def _extracted(length: int, count: int, folder: str) -> list[Reading]:
    async with PodSystem(memory=folder) as system:
        wanted = manifest(extract_threshold=1, schedule="manual")
        pod = await system.spawn(wanted, client=Caller("write_extracted", _PAYLOAD))
        for item in items(length):
            await pod.push_item(item)
        await pod.try_post_run_extract()
        watch, holds, new = Stopwatch(), Holds(), list(items(_NEW))
        for number in range(count):
            for item in new:
                await pod.push_item(item)
            with watch if number else holds:
                await pod.try_post_run_extract()
        read = (await pod.describe()).extract_pointer
    assert read == length + count * _NEW
    return [watch.each("time of an extraction", max(1, count - 1)), holds.reading()]


def _measure(length: int) -> Measure:
    def measure(count: int) -> list[Reading]:
        with tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder:
            return asyncio.run(_extracted(length, count, folder))

    return measure


async def _by_hand(count: int, folder: Path) -> list[Reading]:
    client = Caller("write_extracted", _PAYLOAD)
    new: list[Item] = list(items(_NEW))
    answered: list[Item] = [*new, ToolResult("1", "write_extracted", ())]
    with Stopwatch() as watch:
        for number in range(count):
            for item in new:
                encode(item)
            for history in (new, answered):
                async for _ in client.stream(Request(history)):
                    pass
            (folder / f"{number}.json").write_text(_PAYLOAD)
    return [watch.each("time of an extraction", count)]


_SHORT = f"{_NEW} new items"
for _length, _case in ((0, _SHORT), (10_000, f"{_SHORT} on top of 10,000")):
    CLAIM.case(
        _case, full=300, quick=100, targets={"longest hold of the loop": at_most(0.010)} if _length else {}
    )(_measure(_length))


@CLAIM.case(_SHORT, by="encode, 2 requests, a file", kind="floor", full=1000, quick=300)
def by_hand(count: int) -> list[Reading]:
    """Encode the new items, read two answers in a loop, write a file."""
    with tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder:
        return asyncio.run(_by_hand(count, Path(folder)))
