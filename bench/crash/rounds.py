"""Runs rounds: a process is forked, works, and is killed; another one is forked and examines what is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from bench.crash import faults
from bench.crash.examine import Examined, examine
from bench.crash.file_faults import LogDeleted
from bench.crash.reports import Alive, Broke, Doing, Line, Listener, Phase, Refused, Seen, Spell, Teller
from bench.crash.worker import Work, work_on

#: Rounds in the life of one store; each finds what those before it have left.
LIFE = 8
#: The phases that kills are aimed at; other kills have no aim.
_AIMS: tuple[Phase, ...] = ("stream", "tool", "compaction", "memory")
#: The longest time that a process is given, in seconds.
_PATIENCE = 8.0


class Round(Struct):
    """The results of one round of one store; ``alive`` counts the pods that took a run after the faults, of
    the ``proven`` ones that were given one.
    """

    store: str
    fault: str | None
    life: int
    number: int
    killed: bool
    phases: list[Phase]
    reported: int
    spells: int
    hits: int
    refused: int
    alive: int
    proven: int
    examined: Examined

    @property
    def findings(self) -> list[str]:
        """What is wrong."""
        return self.examined.findings


class Aim(Struct, frozen=True):
    """When a process is killed: ``delay`` seconds after ``phase`` began for the ``nth`` time, or after the
    process's own start.
    """

    phase: Phase | None
    nth: int
    delay: float

    @classmethod
    def taken(cls, chance: random.Random) -> Aim:
        """A random aim."""
        if chance.random() < 0.35:
            return cls(None, 0, chance.uniform(0.0, 0.2))
        return cls(chance.choice(_AIMS), chance.randint(1, 12), chance.expovariate(1 / 0.0008))


def live(store: str, fault: str | None, seed: int, rounds: int, root: Path) -> Iterator[Round]:
    """A store's life from its first round to its last, or to the first finding, when its folder is kept."""
    folder = root / f"{store}-{fault or 'kill'}-{seed}"
    disk = folder / "disk"
    (disk / "store").mkdir(parents=True)
    (folder / "calls").touch()
    mounted = fault == faults.Full.name
    if mounted:
        if not faults.mount(disk):  # never fill a disk that is not ours
            raise PermissionError(f"mounting a small disk at {disk} takes privileges")
        (disk / "store").mkdir()
    sound = True
    try:
        reported: list[Line] = []
        for number in range(1, rounds + 1):
            found = _round(
                Work(store, folder, f"r{number}", f"{seed}/{number}", fault), seed, number, reported
            )
            sound = not found.findings
            yield found
            if not sound:
                break
    finally:
        if mounted:
            if not sound:
                shutil.copytree(disk, folder / "kept")
            faults.unmount(disk)
        if sound:
            shutil.rmtree(folder)


def _round(work: Work, seed: int, number: int, reported: list[Line]) -> Round:
    """One round; ``reported`` is what was reported in the rounds of this life, and grows."""
    chance = random.Random(f"{work.seed}/plan")
    work = msgspec.structs.replace(work, seconds=0.12 if work.fault else 0.0)
    # Under a fault every third process is killed as well, in the middle of it; but not if its log was
    # deleted: then what it had not merged yet is in no file any more.
    killable = work.fault is None or (chance.random() < 0.33 and work.fault != LogDeleted.name)
    aim = Aim.taken(chance) if killable else None
    listener, code, stuck = _watch(work, aim)
    faults.heal(work.folder)
    reported += listener.received
    killed = code == -signal.SIGKILL
    if killed:
        (work.folder / "killed").touch()
    # If what was refused could not be taken back either, the next claim cuts it off, as after a kill.
    torn = killed or work.fault == faults.FailingFiles.name
    examined = _examine(work, reported, run_on=chance.random() < 0.7, torn=torn)
    examined.findings += [line.what for line in listener.received if isinstance(line, Broke)]
    if stuck:
        examined.findings.append(f"stuck: it told nothing for {_PATIENCE / 2:g} seconds; aimed at {aim}")
    if not killed and code:
        examined.findings.append(f"the process under test ended with code {code}: see {work.folder}/errors")
    proofs = [line for line in listener.received if isinstance(line, Alive)]
    spells = [line for line in listener.received if isinstance(line, Spell)]
    return Round(
        store=work.store,
        fault=work.fault,
        life=seed,
        number=number,
        killed=killed,
        phases=sorted(listener.phases) if killed else [],
        reported=sum(isinstance(line, Seen) for line in listener.received),
        spells=len(spells),
        hits=sum(spell.hits for spell in spells),
        refused=sum(isinstance(line, Refused) for line in listener.received),
        alive=sum(line.well for line in proofs),
        proven=len(proofs),
        examined=examined,
    )


def _watch(work: Work, aim: Aim | None) -> tuple[Listener, int, bool]:
    """What a process reported until it was killed, or had ended; how it ended; and whether it was stuck, so
    that the moment to kill it never came.
    """

    def body(descriptor: int) -> None:
        asyncio.run(work_on(work, Teller(descriptor)))

    listener = Listener()
    with _fork(body, work.folder / "errors") as (process, pipe):
        stuck = _listen(listener, pipe, aim)
        if aim is not None:
            os.kill(process, signal.SIGKILL)
        while data := os.read(pipe, 1 << 16):
            listener.feed(data)
        _, status = os.waitpid(process, 0)
    return listener, os.waitstatus_to_exitcode(status), stuck


def _listen(listener: Listener, pipe: int, aim: Aim | None) -> bool:
    """Read until the moment that is aimed at, or the end. True if neither came, nor anything else
    for long.
    """
    phase, left = (None, 0) if aim is None else (aim.phase, aim.nth)
    deadline = time.monotonic() + (_PATIENCE if aim is None or phase else aim.delay)
    spoke_at = time.monotonic()
    while (wait := deadline - time.monotonic()) > 0:
        readable, _, _ = select.select([pipe], [], [], wait)
        data = os.read(pipe, 1 << 16) if readable else b""
        if readable and not data:
            return False
        spoke_at = time.monotonic() if data else spoke_at
        for line in listener.feed(data):
            if aim is not None and isinstance(line, Doing) and line.phase == phase and line.by > 0:
                left -= 1
                if left == 0:
                    deadline = time.monotonic() + aim.delay
                    phase = None
    return phase is not None and time.monotonic() - spoke_at > _PATIENCE / 2


def _examine(work: Work, reported: list[Line], *, run_on: bool, torn: bool) -> Examined:
    """The examination, in a process of its own."""

    def body(descriptor: int) -> None:
        os.write(descriptor, msgspec.json.encode(examine(work, reported, run_on=run_on, torn=torn)))

    with _fork(body, work.folder / "errors") as (process, pipe):
        data = b"".join(iter(lambda: os.read(pipe, 1 << 16), b""))
        _, status = os.waitpid(process, 0)
    if not data:
        return Examined(findings=[f"the examination ended with code {os.waitstatus_to_exitcode(status)}"])
    return msgspec.json.decode(data, type=Examined)


@contextlib.contextmanager
def _fork(body: Callable[[int], None], errors: Path) -> Iterator[tuple[int, int]]:
    """A fork of this process that runs ``body`` with the writing end of a pipe: its pid, and the reading end.

    A fork starts within two milliseconds with all modules loaded. This process has one thread.
    """
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        _run_and_end(body, writing, errors)
    os.close(writing)
    try:
        yield process, reading
    finally:
        os.close(reading)


def _run_and_end(body: Callable[[int], None], descriptor: int, errors: Path) -> None:
    signal.alarm(int(2 * _PATIENCE))  # nothing hangs for ever
    code = 1
    try:
        sys.stderr = errors.open("a")
        body(descriptor)
        code = 0
    except BaseException:  # noqa: BLE001 - a fork must never return into its parent's code
        traceback.print_exc(file=sys.stderr)
        sys.stderr.flush()
    finally:
        os._exit(code)


def main() -> None:
    """Run the lives that the arguments name, and print their rounds as JSON lines."""
    store, fault, seed, rounds, root = sys.argv[1:]
    left, life = int(rounds), int(seed)
    while left > 0:
        for each in live(store, fault or None, life, min(left, LIFE), Path(root)):
            sys.stdout.write(msgspec.json.encode(each).decode() + "\n")
            sys.stdout.flush()
        left -= LIFE
        life += 1


if __name__ == "__main__":
    main()
