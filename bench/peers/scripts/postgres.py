"""A temporary Postgres server, in a folder of its own and on a socket there."""

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
#: With ``process``, commits survive the end of the server, as in our mode of that name.
_MODES = {"power": (), "process": ("-c", "fsync=off")}


@contextmanager
def postgres(mode):
    """A server's URL, and a function that returns the processor seconds it has taken so far."""
    initdb, program = _program("initdb"), _program("postgres")
    user = _user()
    # The path of a socket must be short, wherever temporary files are.
    with tempfile.TemporaryDirectory(prefix="polypod-bench-", dir="/tmp") as folder:
        if user is not None:
            os.chown(folder, *pwd.getpwnam(user)[2:4])
        data, plain = f"{folder}/data", {"user": user, "cwd": folder, "stdout": subprocess.DEVNULL}
        subprocess.run([initdb, "-D", data, "-U", "bench", "-A", "trust", "--no-sync"], check=True, **plain)
        command = [program, "-D", data, "-k", folder, "-c", "listen_addresses=", *_MODES[mode]]
        start = {"stderr": subprocess.PIPE, "preexec_fn": _end_with_parent, **plain}
        with subprocess.Popen(command, **start) as server:
            try:
                _wait_ready(server)
                yield f"postgresql://bench@/postgres?host={folder}", lambda: _spent(server.pid)
            finally:
                server.terminate()  # it waits for its clients, which have gone
                server.stderr.close()
                server.wait(20)


def _end_with_parent():
    """Have the server shut down if this process is killed, for instance because it takes too long."""
    with contextlib.suppress(OSError, AttributeError):  # not on Linux
        ctypes.CDLL(None).prctl(1, signal.SIGINT)


def _program(name):
    found = shutil.which(name) or next(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), None)
    if found is None:
        raise SystemExit(f"Postgres is not installed here: there is no {name}")
    return found


def _user():
    """The user that runs it: Postgres refuses root."""
    if os.geteuid() != 0:
        return None
    names = {each.pw_name for each in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _wait_ready(server):
    for line in server.stderr:
        if b"ready to accept connections" in line:
            os.set_blocking(server.stderr.fileno(), False)  # nobody reads its later output
            return
    raise SystemExit("Postgres did not start")


def _spent(pid):
    """The processor time of the server and its processes, those that have ended included."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return _times(pid, 4) + sum(_times(each, 2) for each in children)


def _times(pid, fields):
    """Seconds in the first ``fields`` times of a process: two of its own, two of its ended children."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0  # it has ended meanwhile, and its time counts for the server
    return sum(map(int, stat.rpartition(")")[2].split()[11 : 11 + fields])) / _TICKS
