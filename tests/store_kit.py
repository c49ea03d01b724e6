"""What the tests of stores share: entries to write, and faults to have."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

from actors.sessions.chain import chained, head_of
from actors.sessions.jsonl.store import JsonLinesStore
from actors.sessions.sqlite.store import SQLiteStore
from actors.sessions.store import SessionStore
from protocol.entries import Head, Parent, StoredEntry

#: Each kind of store on disk, and how it is opened in a folder.
KINDS: dict[str, Callable[[Path], SessionStore]] = {
    "sqlite-process": lambda folder: SQLiteStore(folder / "pods.db"),
    "sqlite-power": lambda folder: SQLiteStore(folder / "pods.db", "power"),
    "jsonl-process": lambda folder: JsonLinesStore(folder / "pods"),
    "jsonl-power": lambda folder: JsonLinesStore(folder / "pods", "power"),
}

NOBODY = 65534


def done(future: Future[None] | None) -> None:
    """Wait until it is durable, or raise what it failed with."""
    if future is not None:
        future.result(timeout=60)


def bodies(*texts: str) -> list[bytes]:
    return [b'{"text":"%s"}' % text.encode() for text in texts]


def make(
    store: SessionStore,
    session_id: str,
    *texts: str,
    pod: str = "pod",
    parent: Parent | None = None,
    claim: bool = True,
) -> list[StoredEntry]:
    entries = chained(bodies(*texts), first_seq=1 if parent is None else parent.at_seq + 1)
    done(store.create(session_id, pod, parent, entries, claim=claim))
    return entries


def add(store: SessionStore, session_id: str, after: Head, *texts: str) -> Head:
    batch = chained(bodies(*texts), after=after)
    done(store.append(session_id, after, batch))
    return head_of(batch)


def child_of(session_id: str, entries: list[StoredEntry], kind: str = "forked_from") -> Parent:
    return Parent(kind, session_id, entries[-1].hash.hex(), entries[-1].seq)


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond ``size`` bytes: writes are cut short, then refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of that size is at ``folder``; skips the test where nobody may mount one."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting takes privileges")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def without_privileges(folder: Path) -> Iterator[None]:
    """Permissions hold within, also where the tests run as root."""
    if os.geteuid():
        yield
        return
    for path in [folder, *folder.parents][:4]:
        path.chmod(0o755)
    os.chown(folder, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def python(script: str, *arguments: object, pass_fds: Sequence[int] = ()) -> subprocess.Popen[str]:
    """A process that runs ``script``, with pipes to talk to it."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=pass_fds,
    )
