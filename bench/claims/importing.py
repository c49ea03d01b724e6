"""Claim: what the imports of a first program cost in time and memory, and what they must not load."""

from __future__ import annotations

import subprocess
import sys

import msgspec

from bench.claim import Claim, at_most
from bench.results import Reading

CLAIM = Claim("import", "import: what the first line of a program costs")

#: Run in a fresh interpreter, which is the process under test; nothing of the bench is loaded there.
_PROGRAM = """
import time
cpu, wall = time.process_time(), time.perf_counter()
{imports}
cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
import gc, json, resource, sys
gc.collect()
try:
    with open("/proc/self/statm") as file:
        memory = int(file.read().split()[1]) * resource.getpagesize()
except OSError:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
heavy = sum(name in sys.modules for name in ("aiohttp", "httpx", "rich", "click", "ray", "psycopg"))
print(json.dumps([cpu, wall, memory, heavy, len(sys.modules)]))
"""


def _imported(imports: str) -> list[Reading]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(imports=imports)], capture_output=True, check=True
    )
    cpu, wall, memory, heavy, loaded = msgspec.json.decode(done.stdout, type=list[float])
    return [
        Reading("time", "s", cpu, "cpu", wall),
        Reading("memory of the process", "B", memory),
        Reading("heavy modules loaded", "count", heavy),
        Reading("modules loaded", "count", loaded),
    ]


@CLAIM.case(
    "import polypod",
    full=1,
    quick=1,
    tiny=1,
    targets={
        "time": at_most(0.090),
        "memory of the process": at_most(30e6),
        "heavy modules loaded": at_most(0),
    },
)
def import_polypod(_: int) -> list[Reading]:
    """What a first program imports: a name is imported when it is first asked for."""
    return _imported("from polypod import PodManifest, PodSystem, Scope, tool")


@CLAIM.case("import polypod", by="asyncio, pykka, msgspec", kind="floor", full=1, quick=1, tiny=1)
def import_ground(_: int) -> list[Reading]:
    """Only the libraries it is built on."""
    return _imported("import asyncio, pykka, msgspec")
