"""Where polypod keeps what is a user's and of no project: state, configuration and sockets; pure but for the
environment.
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


def _below(variable: str, usual: str) -> Path:
    named = os.environ.get(variable) or usual
    try:
        return Path(named).expanduser() / _OWN
    except RuntimeError:  # a user without a home
        return Path("/") / _OWN
