"""``python -m bench.peers``: makes the peers' environments where they are missing."""

from __future__ import annotations

import subprocess
import sys
import venv

from bench.peers.catalogue import PEERS, VENVS, Peer


def made(peer: Peer) -> bool:
    """Make a peer's environment; whether it is there now."""
    print(f"setting up {peer.name}", file=sys.stderr)
    venv.create(VENVS / peer.name, with_pip=True, clear=True)
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
