"""The command ``python -m bench.peers [NAME…]``: creates missing environments of these peers, or of all."""

from __future__ import annotations

import subprocess
import sys

from bench.interpreters import find_interpreter
from bench.peers.catalogue import PEERS, VENVS, Peer


def interpreter(needs: tuple[int, int]) -> str | None:
    """A new enough Python: this one, or the oldest other; None if there is none."""
    if sys.version_info >= needs:
        return sys.executable
    newer = ((needs[0], minor) for minor in range(needs[1], 20))
    return next(filter(None, map(find_interpreter, newer)), None)


def make_environment(peer: Peer) -> bool:
    """Create a peer's environment. Returns whether it exists now."""
    print(f"setting up {peer.name}", file=sys.stderr)
    python = interpreter(peer.needs)
    if python is None:
        print(f"{peer.name} needs Python {peer.needs[0]}.{peer.needs[1]}; it is left out", file=sys.stderr)
        return False
    subprocess.run([python, "-m", "venv", "--clear", str(VENVS / peer.name)], check=True)
    pip = (str(peer.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    done = subprocess.run([*pip, *peer.packages], check=False)
    if done.returncode:
        peer.python.unlink()  # an incomplete environment counts as none
        print(f"{peer.name} could not be installed; it is left out", file=sys.stderr)
    return done.returncode == 0


def main(names: list[str]) -> int:
    """Create what is missing. Returns 1 if an environment could not be created, 2 for an unknown name."""
    unknown = {*names} - {peer.name for peer in PEERS}
    if unknown:
        print(f"no such peer: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    wanted = [peer for peer in PEERS if not names or peer.name in names]
    results = [make_environment(peer) for peer in wanted if not peer.installed]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
