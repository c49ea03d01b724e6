"""Identifies a process by its number, start time and boot, since numbers are used again."""

from __future__ import annotations

import contextlib
from functools import lru_cache
from pathlib import Path

from actors.runtime.children.descendants import Process, find_process


def mark_of(pid: int) -> str | None:
    """What marks the process that has this number now off from all that had it, or will have it; None where
    there is none, or the system does not say.
    """
    found = find_process(pid)
    return None if found is None else f"{_boot_id()}:{found.began}"


def is_running(pid: int, mark: str) -> bool:
    """Whether the process with that mark lives; by now its number may be another's."""
    return mark_of(pid) == mark


def marked(pid: int, mark: str) -> Process | None:
    """The process with that mark, to be signalled; None where it lives no more."""
    found = find_process(pid)
    return found if found is not None and mark_of(pid) == mark else None


@lru_cache(maxsize=1)
def _boot_id() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""
