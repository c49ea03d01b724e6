"""``python -m bench.peers``: makes the peers' environments where they are missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator

from bench.peers.catalogue import PEERS, VENVS, Peer


def interpreter(needs: tuple[int, int]) -> str | None:
    """A Python that is new enough: this one, or the oldest such on the path; None where there is none."""
    if sys.version_info >= needs:
        return sys.executable
    return next((found for found in _on_path() if _runs(found, needs)), None)


def _on_path() -> Iterator[str]:
    yield from filter(None, (shutil.which(f"python3.{minor}") for minor in range(11, 20)))


def _runs(python: str, needs: tuple[int, int]) -> bool:
    program = f"import sys; sys.exit(sys.version_info < {needs!r})"
    return subprocess.run([python, "-c", program], check=False, capture_output=True).returncode == 0


def made(peer: Peer) -> bool:
    """Make a peer's environment; whether it is there now."""
    print(f"setting up {peer.name}", file=sys.stderr)
    python = interpreter(peer.needs)
    if python is None:
        print(f"{peer.name} needs Python {peer.needs[0]}.{peer.needs[1]}; it is left out", file=sys.stderr)
        return False
    subprocess.run([python, "-m", "venv", "--clear", str(VENVS / peer.name)], check=True)
    pip = (str(peer.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    done = subprocess.run([*pip, *peer.packages], check=False)
    if done.returncode:
        peer.python.unlink()  # half an environment is none
        print(f"{peer.name} could not be installed; it is left out", file=sys.stderr)
    return done.returncode == 0


def main() -> int:
    """Make what is missing; 1 where one could not be made."""
    results = [made(peer) for peer in PEERS if not peer.installed]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
