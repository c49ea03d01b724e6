"""Where polypod keeps what is a user's and of no project: state, configuration and sockets; and how folders
are made that are a user's alone.
"""

from __future__ import annotations

import os
from pathlib import Path

_OWN = "polypod"


def state_path() -> Path:
    """The folder of the default store, of the token of answers, and of all else that lasts."""
    return _below("XDG_STATE_HOME", "~/.local/state")


def data_path() -> Path:
    """The folder of what pods may work in: unlike the others it is closed to none."""
    return _below("XDG_DATA_HOME", "~/.local/share")


def configuration_path() -> Path:
    """The folder of the user's own settings."""
    return _below("XDG_CONFIG_HOME", "~/.config")


def runtime_path() -> Path | None:
    """The folder of sockets, None where the system gives none."""
    named = os.environ.get("XDG_RUNTIME_DIR")
    return Path(named) / _OWN if named else None


def make_private(folder: Path) -> None:
    """Make a folder, and what is missing above it, for its owner alone, also in a program whose umask is 0.

    Raises OSError.
    """
    for each in reversed([each for each in folder.parents if not each.exists()]):
        each.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def _below(variable: str, usual: str) -> Path:
    named = os.environ.get(variable) or usual
    try:
        return Path(named).expanduser() / _OWN
    except RuntimeError:  # a user without a home
        return Path("/") / _OWN
