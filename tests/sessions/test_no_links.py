"""A file system without hard links, as memory sticks have: sessions are exported to it, and kept there."""

from __future__ import annotations

import errno
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from warm import Popen

from actors.runtime.children.confinement import seccomp
from actors.sessions.disk import name_file

# Has the kernel refuse every hard link in this process, then uses a store, and exports from it.
WITHOUT_LINKS = """
import struct, sys
from pathlib import Path
from actors.runtime.children.kernel import PR_SET_NO_NEW_PRIVS, call
from actors.runtime.children.confinement.seccomp import install
from actors.sessions.answer_token import answer_token
from actors.sessions.chain import chained
from actors.sessions.repair import check, export_session
from actors.sessions.urls import open_store
from protocol.errors import HeadConflict, StoreError

folder, error, link, linkat = Path(sys.argv[1]), *map(int, sys.argv[2:])
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
steps = [
    (LOAD, 0, 0, 0), (EQUAL, 1, 0, link), (EQUAL, 0, 1, linkat),
    (RETURN, 0, 0, 0x50000 | error), (RETURN, 0, 0, 0x7FFF0000),
]
call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
install(b"".join(struct.pack("HBBI", *step) for step in steps))
store = open_store(f"jsonl:{folder}/pods")
for refused in False, True:
    try:
        store.create("s", "p", None, chained([b"{}"]), claim=False)
        export_session(store, "s", folder / "exported")
    except HeadConflict:
        print("refused" if refused else "not made")
    try:
        if refused:
            export_session(store, "s", folder / "exported")
    except StoreError as error:
        print(error.message)
print(list(check(store)), answer_token().id == answer_token().id)
"""
#: The numbers of the system calls ``link`` and ``linkat``.
CALLS = {"x86_64": (86, 265), "aarch64": (37, 37)}


@pytest.mark.skipif(
    platform.machine() not in CALLS or not seccomp.is_known(), reason="no filter for this machine"
)
@pytest.mark.parametrize("error", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_without_hard_links_takes_sessions(error: int, tmp_path: Path) -> None:
    numbers = [str(number) for number in (error, *CALLS[platform.machine()])]
    command = [sys.executable, "-c", WITHOUT_LINKS, str(tmp_path), *numbers]
    environment = {"XDG_STATE_HOME": str(tmp_path / "state")}
    with Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        out, err = process.communicate(timeout=60)
    exists = f"{tmp_path}/exported already exists"
    assert out.splitlines() == ["refused", exists, "[] True"], err
    assert (tmp_path / "exported").read_bytes() == (tmp_path / "pods" / "s.jsonl").read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_cannot_be_moved_to_its_name_there_leaves_no_empty_file(tmp_path: Path) -> None:
    draft, path = tmp_path / "draft", tmp_path / "name"
    draft.mkdir()  # of a folder there is no hard link anywhere
    with pytest.raises(NotADirectoryError):
        name_file(draft, path)
    assert not path.exists()
