"""The command as its users have it: a process of its own, its two streams and its exit code."""

import atexit
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import actors

COMMAND = [sys.executable, "-m", "polypod"]
ROOT = str(Path(actors.__file__).parents[1])


_ENV = {"PATH": os.environ["PATH"], "PYTHONPATH": ROOT, "PYTHONWARNINGS": "error", "LANG": "C.UTF-8"}


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """What ``--json`` printed."""
        return [json.loads(line) for line in self.out.splitlines()]


class Home:
    """A person's folder, with a state folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "work"
        self.folder.mkdir()
        self.state = folder / "state"
        self.env = _ENV | {"HOME": str(folder), "XDG_STATE_HOME": str(self.state)}

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        options = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "cwd": self.folder,
            "text": True,
        } | options
        return subprocess.Popen([*COMMAND, *arguments], env=self.env, **options)

    def polypod(self, *arguments: str, words: str | None = None) -> Done:
        """Run the command to its end: in a child of a process that has all of it imported, where the
        environment is one that Python itself would start in alike.
        """
        if _of_python(self.env) == _of_python(_ENV):
            return _server().run(arguments, str(self.folder), self.env, (words or "").encode())
        with self.start(*arguments, stdin=subprocess.PIPE) as process:
            out, err = process.communicate(words, timeout=60)
        return Done(process.returncode, out, err)

    def run(self, task: str, *arguments: str) -> Done:
        """A run on the embedded model."""
        return self.polypod("run", task, "--model", "offline", *arguments)

    def session(self) -> str:
        """The id of the session that changed last."""
        return self.polypod("ps", "--json").lines[0]["session_id"]


class _Server:
    """A process that has the command imported, and forks to run it."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        self._control.settimeout(60)
        program = Path(__file__).with_name("command_server.py")
        self._process = subprocess.Popen(
            [sys.executable, str(program), str(theirs.fileno())], env=_ENV, pass_fds=[theirs.fileno()]
        )
        theirs.close()
        atexit.register(self._close)

    def run(self, arguments: tuple[str, ...], folder: str, env: dict[str, str], words: bytes) -> Done:
        pipes = [os.pipe() for _ in range(3)]
        theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
        asked = json.dumps({"arguments": arguments, "folder": folder, "env": env})
        socket.send_fds(self._control, [asked.encode() + b"\n"], theirs)
        for descriptor in theirs:
            os.close(descriptor)
        with ThreadPoolExecutor(2) as readers:
            out, err = (readers.submit(_all_of, pipe[0]) for pipe in pipes[1:])
            with suppress(BrokenPipeError), os.fdopen(pipes[0][1], "wb") as given:
                given.write(words)
            code = int(self._control.makefile().readline())
            return Done(code, out.result().decode(), err.result().decode())

    def _close(self) -> None:
        self._control.close()
        self._process.wait()


def _all_of(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as pipe:
        return pipe.read()


_server = cache(_Server)


def _of_python(env: dict[str, str]) -> dict[str, str]:
    """What Python reads of an environment before it runs a program."""
    return {name: value for name, value in env.items() if name.startswith(("PYTHON", "LANG", "LC_"))}


@contextmanager
def silent_server() -> Iterator[tuple[str, threading.Event]]:
    """A server that takes a request and never answers: its URL, and the sign that one has come."""
    came = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                held.append(connection)
                if connection.recv(65536):
                    came.set()

        held: list[socket.socket] = []
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1", came
        server.shutdown(socket.SHUT_RDWR)
    for connection in held:
        connection.close()


def dead_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
