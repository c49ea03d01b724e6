"""An interpreter that has all of polypod imported, and forks: each child is what one just started would be.

It gets what to run over the socket that is its standard input: a line of JSON, with the descriptors that the
child is to have. It answers with the child's number. The child belongs to whoever asked: the process between
ends at once, and who asks takes in orphans meanwhile.
"""

import atexit
import gc
import importlib
import io
import json
import os
import pkgutil
import runpy
import signal
import socket
import sys
import threading
import types
from pathlib import Path
from typing import Any

import actors
from actors.pod_process import zygote

#: Where modules are found whatever is run.
PLACES = sys.path[1:]
#: Names what is imported besides, with commas between: some of the rare, for tests that start many that need it.
ALSO = "PYTHON_ALSO_IMPORT"
#: What brings the SDKs of the two protocols and the library of the full screen.
RARE = ("actors.cli.top.", "actors.swarm.runners.acp", "actors.tools.mcp.")


def preload() -> None:
    """Import all that is imported when it is needed, but for what few need and is most of it."""
    for module in pkgutil.walk_packages(actors.__path__, "actors."):
        if not module.name.startswith(RARE):
            importlib.import_module(module.name)
    usual = ("polypod", "prompt_toolkit", "rich.console", "rich.live", "rich.spinner", "msgspec.toml")
    for name in (*usual, *filter(None, os.environ.get(ALSO, "").split(","))):
        importlib.import_module(name)
    zygote.prepare()  # what the first run of a process builds: prices, regular expressions


def serve() -> tuple[dict[str, Any], list[int]]:
    """Fork a child for each request; it returns what was asked for, in the child."""
    asking = socket.socket(fileno=os.dup(0))
    while True:
        line, descriptors, *_ = socket.recv_fds(asking, 1 << 16, 64)
        while line and not line.endswith(b"\n"):
            line += asking.recv(1 << 16)
        if not line:
            sys.exit()
        between = os.fork()
        if between == 0:
            child = os.fork()
            if child:
                asking.sendall(str(child).encode())
                os._exit(0)
            asking.close()
            return json.loads(line), list(descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        os.waitpid(between, 0)
        asking.sendall(b"\n")  # now the child belongs to who asked


def become(request: dict[str, Any], descriptors: list[int]) -> None:
    """Have this process be what an interpreter is that was just started so."""
    high = [_moved_up(descriptor) for descriptor in descriptors]
    for descriptor, number in zip(high, [0, 1, 2, *request["pass_fds"]], strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    # Which was another's when the first child was asked for, and is kept across the start of a program.
    signal.signal(signal.SIGHUP, signal.SIG_IGN if request["ignores_hangup"] else signal.SIG_DFL)
    if request["start_new_session"]:
        os.setsid()
    if request["cwd"] is not None:
        os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    kinds = ((sys.stdin, "r"), (sys.stdout, "w"), (sys.stderr, "w"))
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, kind, encoding=stream.encoding, errors=stream.errors, closefd=False)  # noqa: SIM115
        for number, (stream, kind) in enumerate(kinds)
    )
    assert isinstance(sys.stderr, io.TextIOWrapper)
    sys.stderr.reconfigure(line_buffering=True)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr


def _moved_up(descriptor: int) -> int:
    """The same file under a number that no child is to have."""
    import fcntl  # noqa: PLC0415

    high = fcntl.fcntl(descriptor, fcntl.F_DUPFD, 200)
    os.close(descriptor)
    return high


def run(arguments: list[str], places: list[str]) -> None:
    """Run what the arguments of an interpreter ask for: ``-c TEXT``, ``-m MODULE`` or a file."""
    what, *rest = arguments
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = __builtins__
    sys.argv = ["-c" if what == "-c" else rest[0] if what == "-m" else what, *rest[what[:1] == "-" :]]
    first = "" if what == "-c" else str(Path.cwd()) if what == "-m" else str(Path(what).resolve().parent)
    sys.path[:] = [first, *places, *PLACES]
    if what == "-m":
        runpy._run_module_as_main(rest[0])  # type: ignore[attr-defined]
    elif what == "-c":
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    else:
        main.__file__ = what
        exec(compile(Path(what).read_bytes(), what, "exec"), main.__dict__)


def end(code: object) -> None:
    """End as an interpreter does, but leave the modules as they are: to take them all apart takes many times as
    long as a command.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    gc.collect()  # what was left open is reported on standard error
    sys.stdout.flush()
    sys.stderr.flush()
    if code is None or isinstance(code, int):
        os._exit(code or 0)


if __name__ == "__main__":
    preload()
    gc.freeze()  # else each child would walk over, and copy, what all of them share
    request, descriptors = serve()
    become(request, descriptors)
    try:
        run(
            request["arguments"],
            [place for place in request["env"].get("PYTHONPATH", "").split(os.pathsep) if place],
        )
    except SystemExit as left:
        end(left.code)
        raise
    end(0)
