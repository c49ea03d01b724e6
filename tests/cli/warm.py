"""Runs commands one after the other, each in a process forked from this one, which has all of it imported.

Reads a request a line from standard input, and writes an answer a line to standard output, as JSON.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import sys
import threading
from typing import Any

import actors
from actors.cli import main


def preload() -> None:
    """Import all that a command imports when it needs it."""
    for module in pkgutil.walk_packages(actors.__path__, "actors."):
        importlib.import_module(module.name)
    for name in ("polypod", "prompt_toolkit", "rich.console", "rich.live", "rich.spinner", "msgspec.toml"):
        importlib.import_module(name)


def become(request: dict[str, Any]) -> None:
    """Have this process be what an interpreter is that was just started with that command."""
    for number, name, flags in (
        (0, "in", os.O_RDONLY),
        (1, "out", os.O_WRONLY | os.O_CREAT),
        (2, "err", os.O_WRONLY | os.O_CREAT),
    ):
        descriptor = os.open(os.path.join(request["streams"], name), flags, 0o600)  # noqa: PTH118
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv = ["polypod", *request["arguments"]]
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115


def serve() -> None:
    """Fork a child for each request; in the child this returns."""
    while line := sys.stdin.buffer.readline():
        pid = os.fork()
        if pid == 0:
            become(json.loads(line))
            return
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        sys.stdout.write(f"{json.dumps(code)}\n")
        sys.stdout.flush()
    sys.exit()


def end(code: object) -> None:
    """End as an interpreter does, but leave the modules as they are: to take them all apart takes many times as
    long as a command.
    """
    threading._shutdown()
    atexit._run_exitfuncs()
    gc.collect()  # what was left open is told on standard error
    sys.stdout.flush()
    sys.stderr.flush()
    if isinstance(code, int):
        os._exit(code)


if __name__ == "__main__":
    preload()
    gc.freeze()  # else each child would walk over, and copy, what all of them share
    serve()
    try:
        main.main()
    except SystemExit as left:
        end(left.code)
        raise
