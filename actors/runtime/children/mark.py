"""Identifies a process by pid, start time and boot, since pids are reused."""

from __future__ import annotations

import contextlib
from functools import lru_cache
from pathlib import Path

from actors.runtime.children.descendants import Process, find_process


def mark_of(pid: int) -> str | None:
    """A mark of the process that has this pid now, different for every process that ever has it. None if
    there is none, or the system does not say.
    """
    found = find_process(pid)
    return None if found is None else f"{_boot_id()}:{found.began}"


def is_running(pid: int, mark: str) -> bool:
    """Whether the process with that mark is running; its pid may be another's by now."""
    return mark_of(pid) == mark


def marked(pid: int, mark: str) -> Process | None:
    """The process with that mark, to be signalled; None if it has ended."""
    found = find_process(pid)
    return found if found is not None and mark_of(pid) == mark else None


@lru_cache(maxsize=1)
def _boot_id() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""
