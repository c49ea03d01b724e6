"""Quarantine: writes a damaged session to a file outside the store."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from actors.runtime.user_folders import make_private
from actors.sessions.answers import wait
from actors.sessions.disk import name_file, store_error
from actors.sessions.jsonl.files import draft_file, file_name
from actors.sessions.jsonl.lines import batch_lines, header_line
from protocol.entries import StoredEntry

if TYPE_CHECKING:
    from actors.sessions.store import SessionStore


def aside_path(session_id: str, folder: Path) -> Path:
    """A file in ``folder`` that is not there yet."""
    path = folder / file_name(session_id)
    return path if not path.exists() else path.with_name(f"{path.stem}.{time.time_ns()}{path.suffix}")


def keep_aside(store: SessionStore, session_id: str, folder: Path) -> Path:
    """Write a session to a file as it is, nothing checked; but an entry that was damaged into several lines
    is one, with escapes in the place of their ends. Raises SessionNotFound, StoreError.
    """
    info, path = wait(store.info(session_id)), aside_path(session_id, folder)
    lines = [header_line(session_id, info.pod, info.created_at, info.parent)]
    lines += [batch_lines([_on_one_line(entry)]) for entry in wait(store.read(session_id))]
    try:
        make_private(folder)
        for left in folder.glob(f".{file_name(session_id)}.*"):  # by a repair that was killed over it
            left.unlink(missing_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        with draft_file(draft, b"".join(lines), at=time.time_ns(), sync=True):
            name_file(draft, path)
    except OSError as error:
        raise store_error(error, path) from error
    return path


def _on_one_line(entry: StoredEntry) -> StoredEntry:
    return StoredEntry(entry.seq, entry.hash, entry.body.replace(b"\n", b"\\n"))
