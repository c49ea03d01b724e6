"""The command as its users have it: a process of its own, its two streams and its exit code."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from warm import ROOT, Popen, read_at_start

COMMAND = [sys.executable, "-m", "polypod"]


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
        self.env = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT)}
        self.env |= {"XDG_STATE_HOME": str(self.state), "PYTHONWARNINGS": "error", "LANG": "C.UTF-8"}
        self._usual = read_at_start(self.env)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """A command at work. It has all of it imported, unless the environment is one that the interpreter reads
        as it starts, or something is to be done before.
        """
        options = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "cwd": self.folder,
            "text": True,
        } | options
        usual = read_at_start(self.env) == self._usual and "preexec_fn" not in options
        kind = Popen if usual else subprocess.Popen
        return kind([*COMMAND, *arguments], env=self.env, **options)

    def polypod(self, *arguments: str, words: str = "") -> Done:
        """What a command does."""
        with self.start(*arguments, stdin=subprocess.PIPE) as process:
            out, err = process.communicate(words, timeout=60)
        return Done(process.returncode, out, err)

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


#: A tool that leaves behind whom it has paid, and dies with its process where that is asked for.
SHOP = '''
import os, signal
from polypod import tool

@tool
def pay(to: str) -> str:
    """Pay somebody."""
    with open("paid.txt", "a") as paid:
        paid.write(to + "\\n")
    if to == "doomed":
        os.kill(os.getpid(), signal.SIGKILL)
    return "paid"
'''


def paid(home: Home) -> list[str]:
    """Whom that tool has paid."""
    path = home.folder / "paid.txt"
    return path.read_text().split() if path.exists() else []
