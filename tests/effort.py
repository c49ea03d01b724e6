"""How much the tests try: enough for every change by default, and far more with ``POLYPOD_THOROUGH=1``."""

import os

THOROUGH = os.environ.get("POLYPOD_THOROUGH", "") not in {"", "0"}


def examples(usual: int) -> int:
    """How many examples a property is tried on, where ``usual`` are enough for every change."""
    return usual * 10 if THOROUGH else usual
