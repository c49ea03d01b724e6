"""AGENTS.md: the instructions of a project, read for a pod that works in one of its folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from protocol.files import read_file

#: The files that are looked for in each folder; the first one that is there counts.
NAMES = ("AGENTS.override.md", "AGENTS.md")
#: The most that is read of all of them, in bytes: as much as other programs read.
MOST = 32 * 1024


class Instructions(NamedTuple):
    """The files that were found, the outermost first; what they say; and what a person should know of it."""

    files: tuple[Path, ...]
    text: str
    notes: tuple[str, ...]


def project_instructions(pwd: Path) -> Instructions | None:
    """The instructions that hold in ``pwd``: those of the project's root first, then of each folder on the
    way to ``pwd``. The root is the nearest folder around it with a ``.git``; without one only ``pwd`` counts.

    A link that leads out of the project is passed over: what a repository brings along must not have other
    files read.
    """
    root = project_root(pwd)
    texts: list[str] = []
    files: list[Path] = []
    notes: list[str] = []
    left = MOST
    for path in _files(root, pwd):
        if not path.resolve().is_relative_to(root.resolve()):
            notes.append(f"{path} leads out of the project and is not read")
            continue
        try:
            data = read_file(path, left + 1)
        except OSError as error:
            notes.append(f"{path} cannot be read: {error.strerror}")
            continue
        if len(data) > left:
            notes.append(f"{path} is truncated: at most {MOST // 1024} KiB of instructions are read")
        text = data[:left].decode("utf-8", "replace").removeprefix("\ufeff").strip()
        left = max(left - len(data), 0)
        if text:
            files.append(path)
            texts.append(f"From {path}:\n\n{text}")
    if not files and not notes:
        return None
    return Instructions(tuple(files), "\n\n".join(texts), tuple(notes))


def project_root(pwd: Path) -> Path:
    """The folder of the project around ``pwd``, or ``pwd``."""
    return next((folder for folder in (pwd, *pwd.parents) if (folder / ".git").exists()), pwd)


def _files(root: Path, pwd: Path) -> Iterator[Path]:
    below = pwd.relative_to(root).parts
    for depth in range(len(below) + 1):
        folder = root.joinpath(*below[:depth])
        there = [folder / name for name in NAMES if os.path.lexists(folder / name)]
        if there:  # what is not a file is reported, where no other is there
            yield next(filter(os.path.isfile, there), there[0])


def files_note(found: Instructions, pwd: Path) -> str:
    """The line that names the files: ``instructions: ../AGENTS.md, AGENTS.md``."""
    return f"instructions: {', '.join(os.path.relpath(path, pwd) for path in found.files)}"
