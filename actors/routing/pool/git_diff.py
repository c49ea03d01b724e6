"""What git prints of a difference and of an index, as data; pure."""

from __future__ import annotations

import os
from typing import Literal

from protocol.jobs import FileChange

#: How the entry of a submodule begins, by its mode.
_SUBMODULE = b"160000 "
Kind = Literal["added", "modified", "deleted"]
#: What the letters of ``--raw`` mean; a file of another type is modified.
_KINDS: dict[str, Kind] = {"A": "added", "D": "deleted"}


def parse_changes(printed: bytes) -> tuple[FileChange, ...]:
    """The files that ``git diff --raw --numstat --no-renames -z`` printed, in order of their paths."""
    kinds: dict[str, Kind] = {}
    counts: dict[str, tuple[int | None, int | None]] = {}
    fields = iter(printed.rpartition(b"\0")[0].decode("utf-8", "replace").split("\0"))
    for field in fields:
        if field.startswith(":"):
            kinds[next(fields, "")] = _KINDS.get(field[-1], "modified")
        elif field:
            added, removed, path = [*field.split("\t", 2), "", ""][:3]
            counts[path] = (_number(added), _number(removed))
    return tuple(FileChange(path, kinds[path], *counts.get(path, (None, None))) for path in sorted(kinds))


def parse_submodules(printed: bytes) -> tuple[str, ...]:
    """The paths of the submodules in an index, which ``git ls-files --stage -z`` printed."""
    entries = (each.partition(b"\t") for each in printed.split(b"\0"))
    return tuple(os.fsdecode(path) for about, _, path in entries if about.startswith(_SUBMODULE))


def _number(text: str) -> int | None:
    """A number of lines; None for the dash that git prints for a file without lines."""
    return int(text) if text.isdecimal() else None
