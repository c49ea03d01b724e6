"""A file system without locks, as some over a network are: a store there is refused in words, and nothing is lost."""

from __future__ import annotations

import errno
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from store_kit import KINDS, make
from warm import Popen

from actors.runtime.children.confinement import seccomp
from protocol.entries import StoredEntry

# Has the kernel refuse every lock on a file in this process, then uses a store.
WITHOUT_LOCKS = """
import struct, sys
from actors.runtime.children.kernel import PR_SET_NO_NEW_PRIVS, call
from actors.runtime.children.confinement.seccomp import install
from actors.sessions.chain import chained
from actors.sessions.sqlite import file, schema
from actors.sessions.urls import open_store
from protocol.errors import StoreError

file.OPEN_PATIENCE = schema.OPEN_PATIENCE = 0.1  # nobody holds a lock that would be given back
url, error, flock, fcntl = sys.argv[1], *map(int, sys.argv[2:])
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
steps = [
    (LOAD, 0, 0, 0), (EQUAL, 6, 0, flock), (EQUAL, 0, 6, fcntl),
    (LOAD, 0, 0, 24), (EQUAL, 3, 0, 5), (EQUAL, 2, 0, 6), (EQUAL, 1, 0, 7), (EQUAL, 0, 1, 37),
    (RETURN, 0, 0, 0x50000 | error), (RETURN, 0, 0, 0x7FFF0000),
]
call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
install(b"".join(struct.pack("HBBI", *step) for step in steps))
try:
    store = open_store(url)
    kept = store.create("new", "p", None, chained([b"{}"]))
    if kept is not None:
        kept.get(timeout=60)
except StoreError as refused:
    print(refused)
"""
#: The numbers of the system calls ``flock`` and ``fcntl``.
CALLS = {"x86_64": (73, 72), "aarch64": (32, 25)}


@pytest.mark.skipif(
    platform.machine() not in CALLS or not seccomp.is_known(), reason="no filter for this machine"
)
@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("kind", ["sqlite-process", "sqlite-power", "jsonl-process", "jsonl-power"])
def test_a_store_whose_file_system_has_no_locks_is_refused_and_stays_as_it_is(
    kind: str, error: int, tmp_path: Path
) -> None:
    def kept() -> list[StoredEntry]:
        store = KINDS[kind](tmp_path)
        found = store.read("s")
        assert [each.session_id for each in store.sessions()] == ["s"]
        store.close()
        return found

    store = KINDS[kind](tmp_path)
    entries, url = make(store, "s", "a", "b"), store.url
    store.close()
    numbers = [str(number) for number in (error, *CALLS[platform.machine()])]
    command = [sys.executable, "-c", WITHOUT_LOCKS, url, *numbers]
    with Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        out, err = process.communicate(timeout=60)
    assert "its file system has no locks (put the store on a local disk)" in out, err
    assert kept() == entries
