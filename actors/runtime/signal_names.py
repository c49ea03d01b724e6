"""The names of signals, as people know them."""

from __future__ import annotations

import signal


def signal_name(number: int) -> str:
    """The name of a signal; those for real time, and numbers that are no signal's, have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
