"""The command as its users have it: a process of its own, its two streams and its exit code."""

import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import actors

COMMAND = [sys.executable, "-m", "polypod"]
ROOT = str(Path(actors.__file__).parents[1])


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """What ``--json`` printed."""
        return [json.loads(line) for line in self.out.splitlines()]


class _Warm:
    """A process that forks commands which need not import anything: a tenth of the time."""

    def __init__(self) -> None:
        path = f"{ROOT}{os.pathsep}{Path(__file__).parent}"
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", str(Path(__file__).with_name("warm.py"))],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": path, "LANG": "C.UTF-8"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def done(self, request: dict[str, Any]) -> int:
        """The exit code of a command, once it has ended."""
        given, told = self._process.stdin, self._process.stdout
        assert given is not None
        assert told is not None
        given.write(f"{json.dumps(request)}\n")
        given.flush()
        return int(json.loads(told.readline()))


@functools.cache
def _warm() -> _Warm:
    """That of this test process; it ends when its standard input does."""
    return _Warm()


def _read_at_start(env: dict[str, str]) -> dict[str, str]:
    """The variables that the interpreter reads when it starts."""
    return {name: value for name, value in env.items() if name.startswith(("PYTHON", "LANG", "LC_"))}


class Home:
    """A person's folder, with a state folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "work"
        self.folder.mkdir()
        self.state = folder / "state"
        self.env = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": ROOT}
        self.env |= {"XDG_STATE_HOME": str(self.state), "PYTHONWARNINGS": "error", "LANG": "C.UTF-8"}
        self._usual = _read_at_start(self.env)

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
        """What a command does. It begins with all of it imported, unless the environment is one that the
        interpreter reads as it starts.
        """
        if _read_at_start(self.env) != self._usual:
            with self.start(*arguments, stdin=subprocess.PIPE) as process:
                out, err = process.communicate(words, timeout=60)
            return Done(process.returncode, out, err)
        with tempfile.TemporaryDirectory() as streams:
            files = Path(streams)
            (files / "in").write_text(words or "")
            request = {
                "arguments": arguments,
                "cwd": str(self.folder),
                "env": self.env,
                "streams": streams,
            }
            code = _warm().done(request)
            return Done(code, *((files / name).read_text() for name in ("out", "err")))

    def run(self, task: str, *arguments: str) -> Done:
        """A run on the embedded model."""
        return self.polypod("run", task, "--model", "offline", *arguments)

    def session(self) -> str:
        """The id of the session that changed last."""
        return self.polypod("ps", "--json").lines[0]["session_id"]


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
