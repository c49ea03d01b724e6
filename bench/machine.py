"""Describes the machine in general words: enough to interpret the numbers, nothing that identifies it."""

from __future__ import annotations

import os
import platform
from importlib import metadata

from bench.peers import catalogue as peers
from bench.results import Machine

_NAMED = ("pykka", "msgspec", "httpx", "aiohttp")


def described(*, with_peers: bool = False) -> Machine:
    """The machine and what the numbers depend on, with the peers' versions if they take part."""
    versions = {name: metadata.version(name) for name in _NAMED}
    if with_peers:
        versions |= peers.versions()
    return Machine(
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        system=f"{platform.system()} {platform.machine()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        versions=versions,
    )
