"""Runs the campaign: rounds for every store and every fault, in several processes at a time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
from msgspec import Struct

from bench.crash import faults
from bench.crash.rounds import LIFE, Round
from bench.crash.tally import Tally
from bench.root import ROOT

#: Store lives that one process runs, one after the other.
_LIVES = 5
_decode: Callable[[bytes], Round] = msgspec.json.Decoder(Round).decode

#: Called with each round as it ends.
OnRound = Callable[[Round], None]


class Plan(Struct, frozen=True):
    """How many rounds of kills each store gets, and how many of each fault; ``seed`` determines
    what is done.
    """

    stores: Sequence[str]
    rounds: int
    fault_rounds: int
    faults: Sequence[str] = faults.FAULTS
    seed: int = 1
    jobs: int = 2


class Finding(Struct, frozen=True):
    """What is wrong, where to look at it, and the command that repeats it."""

    what: list[str]
    folder: str
    repeat: str


class Outcome(Struct):
    """The results of a campaign. ``left_out`` names the faults that could not be produced here."""

    tallies: list[Tally]
    findings: list[Finding]
    left_out: list[str]


class _Part(Struct, frozen=True):
    """Some rounds of one kind, for one process."""

    store: str
    fault: str | None
    seed: int
    rounds: int


def run(plan: Plan, tell: OnRound) -> Outcome:
    """Carry a plan out; folders of rounds that found something are kept."""
    root = Path(tempfile.mkdtemp(prefix="polypod-crash-"))
    parts = list(_parts(plan))
    tallies = {(part.store, part.fault): Tally(part.store, part.fault) for part in parts}
    findings: list[Finding] = []
    lock = threading.Lock()

    def record(each: Round) -> None:
        with lock:
            tallies[each.store, each.fault].add(each)
            if each.findings:
                findings.append(_finding(each, root))
            tell(each)

    with ThreadPoolExecutor(plan.jobs) as pool:
        ends = pool.map(lambda part: _run(part, root, record), parts)
        findings += [failed for failed in list(ends) if failed is not None]
    if not findings:
        shutil.rmtree(root)
    possible = {kind for store in plan.stores for kind in faults.kinds(store)}
    left_out = [kind for kind in plan.faults if plan.fault_rounds and kind not in possible]
    return Outcome(list(tallies.values()), findings, left_out)


def _parts(plan: Plan) -> Iterator[_Part]:
    for store in plan.stores:
        yield from _split(store, None, plan.seed, plan.rounds)
    for store in plan.stores:
        for kind in faults.kinds(store):
            if kind in plan.faults:
                yield from _split(store, kind, plan.seed, plan.fault_rounds)


def _split(store: str, fault: str | None, seed: int, rounds: int) -> Iterator[_Part]:
    step = _LIVES * LIFE
    for start in range(0, rounds, step):
        yield _Part(store, fault, seed + start // LIFE, min(step, rounds - start))


def _run(part: _Part, root: Path, record: OnRound) -> Finding | None:
    """Run a part in a process of its own. Returns a finding if that process itself fails."""
    arguments = [part.store, part.fault or "", str(part.seed), str(part.rounds), str(root)]
    command = [sys.executable, "-m", "bench.crash.rounds", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            record(_decode(line))
    if not process.returncode:
        return None
    what = [f"the process that leads the rounds ended with code {process.returncode}"]
    return Finding(what, str(root), " ".join(command))


def _finding(each: Round, root: Path) -> Finding:
    folder = root / f"{each.store}-{each.fault or 'kill'}-{each.life}"
    counts = (
        f"--rounds {each.number}"
        if each.fault is None
        else f"--rounds 0 --fault {each.fault} --fault-rounds {each.number}"
    )
    repeat = f"python -m bench crash --store {each.store} --seed {each.life} {counts}"
    return Finding(each.findings, str(folder), repeat)
