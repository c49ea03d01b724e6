"""Examines a store after a crash or a fault: searches for everything reported, and continues the pods."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from actors.compaction.call_order import in_call_order
from actors.pod.runs.tool_runner import NOT_RUN
from actors.sessions import repair
from actors.sessions.answers import wait
from actors.sessions.replay import open_calls, replay
from actors.sessions.store import SessionInfo, SessionStore
from actors.system import PodSystem
from bench.crash import ends, faults
from bench.crash.file_faults import Swapped, finish_copies
from bench.crash.player import Player, Toolkit
from bench.crash.reports import Line, Made, Returned, Seen, Teller, digest
from bench.crash.worker import Work, manifest, system, tips_of, toolkit
from protocol.entries import ItemsKept, StoredEntry
from protocol.events import CompactDone, ItemEvent, RunEnd
from protocol.items import AssistantItem, Item, ToolResult
from protocol.lifecycle import PodState
from protocol.wire import decode_entry


class Examined(Struct):
    """What was examined, and what is wrong with it.

    ``reported`` counts what was seen in this life of the store and searched for, ``tools`` the calls for
    which a tool ran in it. ``restored`` counts sessions that were continued, ``resumed`` those of them that a
    kill had interrupted. ``torn`` counts batches that were cut off in the middle.
    """

    reported: int = 0
    entries: int = 0
    sessions: int = 0
    compacted: int = 0
    restored: int = 0
    resumed: int = 0
    torn: int = 0
    calls: int = 0
    tools: int = 0
    findings: list[str] = msgspec.field(default_factory=list)


class _Log:
    """One session as its store returns it."""

    def __init__(self, store: SessionStore, info: SessionInfo) -> None:
        self.info = info
        self.entries = wait(store.read(info.session_id))
        self.decoded = [decode_entry(entry.body) for entry in self.entries]
        self.first = self.entries[0].seq

    def at(self, seq: int) -> StoredEntry | None:
        """The entry with that number."""
        index = seq - self.first
        return self.entries[index] if 0 <= index < len(self.entries) else None

    def items(self) -> Iterator[Item]:
        """The items in this log, including those it took over."""
        for entry in self.decoded:
            if isinstance(entry, ItemEvent):
                yield entry.item
            elif isinstance(entry, ItemsKept):
                yield from entry.items


def examine(work: Work, reported: Sequence[Line], *, run_on: bool, torn: bool) -> Examined:
    """Search for what was reported in the store of ``work``; with ``run_on`` have every session's pod
    continue.

    ``torn`` says whether a half-written last batch is allowed, as after a kill.
    """
    found = Examined()
    if torn:
        finish_copies(work.folder)
    store = faults.open_store(work.store, work.folder)
    try:
        _check_store(store, found, torn=torn)
        # What was reported since the backup is lost, as intended.
        swapped = work.fault == Swapped.name
        if not found.findings and not swapped:
            _check_all(store, work, reported, found, closed=False)
        if run_on and not found.findings:
            asyncio.run(_run_on(store, work, found))
            found.findings += ends.unended(store, tips_of(store))
            if not swapped and not (work.folder / "killed").exists():
                found.findings += ends.unclaimed(store, work.folder / "memory")
            if swapped:
                _check_store(store, found, torn=torn)
            else:
                _check_all(store, work, reported, Examined(findings=found.findings), closed=True)
    except Exception as error:  # noqa: BLE001 - a store that cannot be read is a finding
        found.findings.append(f"the examination failed: {type(error).__name__}: {error}")
    finally:
        store.close()
    return found


def _check_store(store: SessionStore, found: Examined, *, torn: bool) -> None:
    for finding in repair.check(store):
        if finding.kind == "torn":
            found.torn += 1
        if finding.kind != "torn" or not torn:
            found.findings.append(f"{finding.kind}: {finding.session_id or store.url}: {finding.text}")


def _check_all(
    store: SessionStore, work: Work, reported: Iterable[Line], found: Examined, *, closed: bool
) -> None:
    logs = {info.session_id: _Log(store, info) for info in wait(store.sessions())}
    found.sessions = len(logs)
    found.entries = sum(len(log.entries) for log in logs.values())
    problems = [
        *_unfound(logs, reported, found),
        *_chain_of_compactions(logs, found),
        *_calls(logs, _tool_runs(work.folder), found, tips=tips_of(store) if closed else []),
    ]
    found.findings += problems


def _unfound(logs: dict[str, _Log], reported: Iterable[Line], found: Examined) -> Iterator[str]:
    """What was reported and is not there."""
    for line in reported:
        if isinstance(line, Seen):
            found.reported += 1
            log = logs.get(line.session_id)
            entry = None if log is None else log.at(line.seq)
            if entry is None:
                yield f"lost: entry {line.seq} of {line.session_id} was told and is not there"
            elif digest(entry.body) != line.digest:
                yield f"changed: entry {line.seq} of {line.session_id} is not what was told"
        elif isinstance(line, Returned):
            ends = logs[line.session_id].decoded if line.session_id in logs else []
            reported_end = (line.run_id, line.outcome)  # a paused run has an earlier end as well
            if not any(isinstance(end, RunEnd) and (end.run_id, end.outcome) == reported_end for end in ends):
                yield f"lost: the result of run {line.run_id} in {line.session_id}"
        elif isinstance(line, Made) and line.session_id not in logs:
            yield f"lost: session {line.session_id} was made and is not there"


def _chain_of_compactions(logs: dict[str, _Log], found: Examined) -> Iterator[str]:
    """Sessions whose parents are not as they say, and compactions that are reported but not done."""
    successors: Counter[str] = Counter()
    for session_id, log in logs.items():
        parent = log.info.parent
        if parent is None:
            continue
        entry = logs[parent.session_id].at(parent.at_seq) if parent.session_id in logs else None
        if entry is None or entry.hash.hex() != parent.at_hash:
            yield f"{parent.kind}: {session_id} names an entry that its parent does not have"
        if parent.kind == "compacted_from":
            found.compacted += 1
            successors[parent.session_id] += 1
            if not any(isinstance(entry, CompactDone) for entry in log.decoded):
                yield f"half a compaction: {session_id} does not say that it is done"
    yield from (f"{each} was compacted {count} times" for each, count in successors.items() if count > 1)


def _tool_runs(folder: Path) -> Counter[str]:
    """How often a tool began, for each call id."""
    return Counter((folder / "calls").read_text().split())


def _calls(logs: dict[str, _Log], runs: Counter[str], found: Examined, *, tips: list[str]) -> Iterator[str]:
    """Calls that ran twice, ran unlogged, or have no result or several."""
    found.tools = len(runs)
    yield from (
        f"twice: a tool ran {times} times for call {each}" for each, times in runs.items() if times > 1
    )
    logged: set[str] = set()
    for session_id, log in logs.items():
        open_: set[str] = set()
        for item in log.items():
            if isinstance(item, AssistantItem):
                if open_:
                    yield f"unanswered: calls {sorted(open_)} of {session_id}"
                open_ = {call.id for call in item.calls}
                logged |= open_
            elif isinstance(item, ToolResult):
                if item.call_id not in open_:
                    yield f"answered twice, or never called: {item.call_id} of {session_id}"
                open_.discard(item.call_id)
                yield from _result(item, runs)
        if open_ and session_id in tips:
            yield f"unanswered: calls {sorted(open_)} at the end of {session_id}"
    found.calls = len(logged)
    yield from (f"unlogged: a tool ran for call {each}, which no log has" for each in set(runs) - logged)


def _result(item: ToolResult, runs: Counter[str]) -> Iterator[str]:
    """Complain about a result that does not fit what the tool did."""
    ran = item.call_id in runs
    if not item.is_error and not ran:
        yield f"invented: call {item.call_id} has a result and no tool ran"
    elif item.text == NOT_RUN and ran:
        yield f"denied: call {item.call_id} is said not to have run, and did"


async def _run_on(store: SessionStore, work: Work, found: Examined) -> None:
    """Restore every session that is not superseded, end its interrupted run, and give it another."""
    chance = random.Random(f"{work.seed}/examination")
    teller = Teller(None)
    with toolkit(work, chance, teller, 0.0) as tools:
        async with system(work, store) as opened:
            for number, session_id in enumerate(tips_of(store)):
                player = Player("", f"{work.mark}-x{number}", chance, teller, 0.0)
                try:
                    found.resumed += await _restored(opened, session_id, player, tools)
                    found.restored += 1
                except Exception as error:  # noqa: BLE001 - a session that cannot be continued is a finding
                    found.findings.append(f"bricked: {session_id}: {type(error).__name__}: {error}")


async def _restored(opened: PodSystem, session_id: str, player: Player, tools: Toolkit) -> bool:
    """Restore and continue a session. Returns whether its last run had been interrupted."""
    before = replay(wait(opened.store.read(session_id)))
    pod = await opened.spawn(manifest(0), client=player, tools=tools.tools(), resume=session_id)
    state = (await pod.describe()).state
    interrupted = before.open_run is not None
    assert state is (PodState.PAUSED if interrupted else PodState.IDLE), f"it is restored as {state}"
    assert await pod.history() == in_call_order(before.items), "its history is not what its log says"
    if interrupted:
        resumed = await pod.resume()
        assert (resumed.outcome, resumed.run_id) == ("finished", before.open_run), f"resumed: {resumed}"
    result = await pod.run("And now?")
    assert result.outcome == "finished", f"another run: {result}"
    assert not open_calls(await pod.history()), "it has calls without results"
    await pod.stop()
    return interrupted
