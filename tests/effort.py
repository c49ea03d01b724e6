"""How much the tests do: ``POLYPOD_THOROUGH=1`` has them do ten times as much."""

import os

THOROUGH = bool(os.environ.get("POLYPOD_THOROUGH"))


def times(usual: int) -> int:
    """A number of examples, or of pods, as it is usually or for who has the time."""
    return usual * 10 if THOROUGH else usual
