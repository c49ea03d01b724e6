"""Where the sockets of a swarm are: in a private folder, by short names, since socket paths are limited."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from actors.runtime.user_folders import make_private, runtime_path
from protocol.errors import AgentError

#: Bytes that a path of a socket may have; some systems allow no more than 103.
_MOST = 100


def inbox_of(root: Path, agent_id: str) -> Path:
    """The socket on which the program of an agent listens."""
    return socket_path("a", f"{root}\0{agent_id}")


def socket_path(kind: str, what: str) -> Path:
    """A socket's path for ``what``, always the same; its folder need not be there."""
    name = f"{kind}-{hashlib.sha256(what.encode(errors='surrogateescape')).hexdigest()[:16]}.sock"
    runtime = runtime_path()
    if runtime is not None and len(os.fsencode(runtime / name)) <= _MOST:
        return runtime / name
    return Path(tempfile.gettempdir(), f"polypod-{os.getuid()}", "run") / name


def make_socket_folder(folder: Path) -> None:
    """Make a folder for sockets that nobody else can reach. Raises AgentError if it belongs to
    another user.
    """
    make_private(folder)
    found = folder.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        raise AgentError(f"{folder} belongs to another user", hint="set $XDG_RUNTIME_DIR")
    if found.st_mode & 0o077:
        folder.chmod(0o700)
