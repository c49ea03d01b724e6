"""``Job``: one case of ours, of a floor or of a peer, run in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from bench.claim import Claim
from bench.peers import catalogue as peers
from bench.results import Effort, Kind, Reading, Target
from bench.root import ROOT

#: The longest time of one process, in seconds.
TIMEOUT = 240.0

#: Would make every process compile all modules anew, which is not a user's cost.
_NOT_PASSED_ON = frozenset({"PYTHONDONTWRITEBYTECODE"})

_decoder = msgspec.json.Decoder(list[Reading])


class NotMeasured(Exception):  # noqa: N818 - says what it is
    """A process under test failed; the text says why."""


class Job(Struct, frozen=True):
    """One case, run by a command that prints its readings as its last line.

    ``repeats`` is the most repeats, if the run has more; ``root`` is the checkout that it runs in.
    """

    claim: str
    case: str
    by: str
    kind: Kind
    command: tuple[str, ...]
    targets: Mapping[str, Target] = {}
    repeats: int | None = None
    root: Path = ROOT

    def due(self, turn: int) -> bool:
        """Whether to measure the repeat with this number, counted from 1."""
        return self.repeats is None or turn <= self.repeats

    def measure(self, timeout: float = TIMEOUT) -> list[Reading]:
        """The readings of one fresh process. Raises NotMeasured."""
        lines = _output(self.command, timeout, self.root).splitlines()
        try:
            return _decoder.decode(lines[-1] if lines else b"")
        except msgspec.DecodeError as error:
            raise NotMeasured(f"printed no readings: {error}") from error


def jobs(claim: Claim, effort: Effort, *, with_peers: bool) -> list[Job]:
    """All jobs of a claim: ours, the floors, and the peers that are installed."""
    own = [
        Job(
            claim.name,
            case.name,
            case.by,
            case.kind,
            (sys.executable, "-m", "bench.child", claim.name, case.by, case.name, effort),
            case.targets,
        )
        for case in claim.cases
    ]
    return own + (_of_peers(claim.name, effort) if with_peers else [])


def _of_peers(claim: str, effort: Effort) -> list[Job]:
    found = []
    for peer, case in peers.cases(claim):
        name = f"{claim}/{case.case}/{case.by}"
        command = (str(peer.python), str(peer.script), name, str(case.count(effort)), str(case.rounds))
        found.append(Job(claim, case.case, case.by, "peer", command, repeats=peers.REPEATS))
    return found


def _output(command: Sequence[str], timeout: float, root: Path) -> bytes:
    env = {
        **{name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON},
        "PYTHONPATH": str(root),
        "PYTHONHASHSEED": "0",
        "BENCH_PYTHON": sys.executable,
    }
    try:
        done = subprocess.run(command, cwd=root, env=env, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotMeasured(f"took more than {timeout:g} seconds") from error
    except OSError as error:
        raise NotMeasured(f"could not be started: {error}") from error
    if done.returncode:
        raise NotMeasured(_last_words(done.stderr) or f"ended with code {done.returncode}")
    return done.stdout


def _last_words(stderr: bytes) -> str:
    lines = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else ""
