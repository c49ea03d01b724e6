"""The ledger of a memory folder: records what a consolidation will write before it writes, so a crash loses
nothing.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from actors.memory.atomic_files import read_text, remove, write_whole
from actors.memory.notes_draft import Change
from actors.memory.notes_folder import NotesFolder
from actors.memory.staging import SUFFIX
from actors.sessions.disk import sync_folder
from protocol.errors import WireError
from protocol.text import UNDECODABLE


class Ledger(msgspec.Struct, frozen=True, omit_defaults=True):
    """``changes`` are decided, and not all made yet. ``consumed`` are the ids of staged files that lasting
    memory contains, though the files may still exist. ``attempts`` counts the failed attempts in a row,
    ``left_out`` the automatic ones to skip before the next.
    """

    consumed: tuple[Annotated[str, Meta(pattern=r"^[^/]+$")], ...] = ()
    changes: tuple[Change, ...] = ()
    attempts: int = 0
    left_out: int = 0


def ledger_path(memory: NotesFolder) -> Path:
    """The path of the ledger."""
    return memory.machinery / "ledger.json"


def read_ledger(memory: NotesFolder) -> Ledger:
    """The ledger; an empty one if there is none. Raises WireError if it is damaged, OSError."""
    path = ledger_path(memory)
    text = read_text(path)
    try:
        return Ledger() if text is None else msgspec.json.decode(text, type=Ledger)
    except UNDECODABLE as error:
        raise WireError(f"{path} is not a ledger: {error}") from error


def write_ledger(memory: NotesFolder, ledger: Ledger) -> Ledger:
    """Write the ledger; only the holder of the lease may. Raises OSError."""
    path = ledger_path(memory)
    if ledger == Ledger():
        remove(path)
    else:
        write_whole(path, msgspec.json.encode(ledger).decode())
    return ledger


def carry_out(memory: NotesFolder, ledger: Ledger) -> Ledger:
    """Do what the ledger says is still to be done: make the changes, then delete what was consumed.

    Raises OSError if a change cannot be made; it is made another time. A consumed file that cannot be deleted
    stays on the ledger, so that nobody works it in again.
    """
    if ledger.changes:
        for change in ledger.changes:
            memory.make(change)
        ledger = write_ledger(memory, msgspec.structs.replace(ledger, changes=()))
    if ledger.consumed:
        left = tuple(each for each in ledger.consumed if not _delete(memory, each))
        if left != ledger.consumed:
            with contextlib.suppress(FileNotFoundError):  # somebody deleted the folder: that is as good
                sync_folder(memory.staging)  # what a power cut brings back must still be on the ledger
            ledger = write_ledger(memory, msgspec.structs.replace(ledger, consumed=left))
    return ledger


def _delete(memory: NotesFolder, staged: str) -> bool:
    """Delete a staged file. Returns whether it is gone."""
    with contextlib.suppress(OSError):
        (memory.staging / f"{staged}{SUFFIX}").unlink(missing_ok=True)
        return True
    return False
