"""Runs commands in children of one process that has the command imported: each costs a fork, not the imports.

A child has the streams, the folder and the environment that it was asked to have, and ends as Python ends.
"""

import gc
import importlib
import json
import os
import runpy
import socket
import sys
from pathlib import Path
from typing import Any

#: What commands import when they need it.
IMPORTED = (
    "actors.cli.main", "actors.llm.offline", "actors.sessions.sqlite", "actors.sessions.jsonl", "actors.tools.builtin",
    "actors.pod.task_tools", "rich.live",
)  # fmt: skip


def serve(control: socket.socket) -> None:
    """Answer each request, a line of JSON with three descriptors, with the exit code, until it is closed."""
    while (request := _received(control)) is not None:
        asked, streams = request
        pid = os.fork()
        if pid == 0:
            control.close()
            _run(streams, **asked)
        for descriptor in streams:
            os.close(descriptor)
        control.sendall(b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _received(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    line, streams = b"", list[int]()
    while not line.endswith(b"\n"):
        more, descriptors, _, _ = socket.recv_fds(control, 65536, 3)
        if not more:
            return None
        line += more
        streams += descriptors
    return json.loads(line), streams


def _run(streams: list[int], arguments: list[str], folder: str, env: dict[str, str]) -> None:
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    how = {"encoding": sys.stdout.encoding, "errors": sys.stdout.errors, "closefd": False}
    sys.stdin = sys.__stdin__ = os.fdopen(0, **how)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", **how)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", 1, **how | {"errors": "backslashreplace"})
    sys.path[0] = str(Path.cwd())
    sys.argv = ["polypod", *arguments]
    runpy.run_module("polypod", run_name="__main__", alter_sys=False)


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
