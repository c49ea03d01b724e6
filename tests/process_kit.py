"""Processes as tests look for them from outside: by a mark in their environment, or by whose children they are."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

MARK = "POLYPOD_TEST_MARK"
#: A shell that cannot be asked to end.
DEAF = "trap '' INT HUP TERM; "


def environment(mark: str) -> dict[str, str]:
    """What a child needs to be found by ``mark``, with all its descendants."""
    return {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", MARK: mark}


def marked(mark: str) -> set[int]:
    """The processes that have such an environment."""
    entry = f"{MARK}={mark}".encode()
    return {pid for pid in _pids() if entry in _read(pid, "environ").split(b"\0")}


def children_of(pid: int) -> set[int]:
    """All processes below one that live."""
    parents = {each: fields for each in _pids() if (fields := _stat(each)) and fields[0] != b"Z"}
    found = {pid}
    while more := {each for each, fields in parents.items() if int(fields[1]) in found} - found:
        found |= more
    return found - {pid}


def parent_of(pid: int) -> int:
    """The process whose child it is, 0 where it has ended."""
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def living() -> set[int]:
    """All processes that have not ended, whoever has to reap them."""
    return {pid for pid in _pids() if (fields := _stat(pid)) and fields[0] != b"Z"}


def wait_until_none(find: Callable[[], Iterable[int]]) -> None:
    """Return once there are none of these processes; the test's own time-out bounds it."""
    while living := set(find()):
        for pid in living:
            wait_for_end(pid)


def wait_for_end(pid: int) -> None:
    """Return once a process has ended, whoever's child it is."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            select.select([handle], [], [])
        finally:
            os.close(handle)


def descriptors() -> set[str]:
    """What this process has open."""
    return {str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if os.path.lexists(each)}


def _pids() -> list[int]:
    return [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]


def _stat(pid: int) -> list[bytes]:
    return _read(pid, "stat").rpartition(b")")[2].split()


def _read(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""
