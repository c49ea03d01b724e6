"""Interpreters for tests that have all of polypod imported when they start: a tenth of the time."""

from __future__ import annotations

import ctypes
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_PR_SET_CHILD_SUBREAPER = 36


class _Server:
    """The process that forks them, with the environment that the interpreter reads when it starts."""

    def __init__(self, read_at_start: dict[str, str]) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair()
        with theirs:
            environment = {"PATH": os.environ["PATH"], **read_at_start, "PYTHONPATH": str(ROOT)}
            script = str(Path(__file__).with_name("warm_server.py"))
            self._process = subprocess.Popen([sys.executable, script], env=environment, stdin=theirs)

    def forked(self, request: dict[str, Any], descriptors: list[int]) -> int:
        """The number of a new child of this process."""
        with self._lock:
            _take_in_orphans(True)
            try:
                socket.send_fds(self._socket, [json.dumps(request).encode(), b"\n"], descriptors)
                answer = b""
                while not answer.endswith(b"\n"):
                    answer += self._socket.recv(64) or b" is not a number: it has ended\n"
                return int(answer)
            except BaseException:  # a test past its time: the next would take this answer for its own
                _server.cache_clear()
                self._socket.close()
                raise
            finally:
                _take_in_orphans(False)


def _take_in_orphans(wanted: bool) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0)


@functools.cache
def _server(*read_at_start: tuple[str, str]) -> _Server:
    """That of this test process; it ends when this process does."""
    return _Server(dict(read_at_start))


def read_at_start(environment: dict[str, str]) -> dict[str, str]:
    """The variables that the interpreter reads when it starts."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(("PYTHON", "LANG", "LC_")) and name != "PYTHONPATH"
    }


class _Forked(subprocess.Popen[Any]):
    """A child of this process as any other, which another has forked."""

    def _execute_child(
        self, args: list[str], executable: None, preexec_fn: None, close_fds: bool, pass_fds: tuple[int, ...],
        cwd: Any, env: dict[str, str] | None, startupinfo: None, creationflags: int, shell: bool,
        p2cread: int, p2cwrite: int, c2pread: int, c2pwrite: int, errread: int, errwrite: int,
        restore_signals: bool, gid: None, gids: None, uid: None, umask: int,
        start_new_session: bool, process_group: int,
    ) -> None:  # fmt: skip
        assert (args[0], preexec_fn, executable, shell) == (sys.executable, None, None, False)
        env = dict(os.environ) if env is None else env
        request = {
            "arguments": args[1:],
            "cwd": os.fspath(cwd or Path.cwd()),
            "env": env,
            "pass_fds": pass_fds,
            "start_new_session": start_new_session,
            "ignores_hangup": signal.getsignal(signal.SIGHUP) is signal.SIG_IGN,
        }
        given = [number if given < 0 else given for number, given in enumerate((p2cread, c2pwrite, errwrite))]
        try:
            self.pid = _server(*sorted(read_at_start(env).items())).forked(request, [*given, *pass_fds])
            self._child_created = True
        finally:
            self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]


#: ``subprocess.Popen`` for commands of this interpreter; where a process cannot take in orphans, just that.
Popen = _Forked if sys.platform == "linux" else subprocess.Popen
