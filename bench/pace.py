"""Measures the machine's pace: how long a fixed piece of work takes at this moment."""

from __future__ import annotations

import time

#: A repeat that was measured while the machine ran so many times slower than at its best is repeated.
BUSY = 1.15
_ROUNDS = 5
_STEPS = 2_000


def pace() -> float:
    """Processor seconds of a fixed piece of work: calls, small objects and a dict, like our own code.

    On a core that is shared or slowed down, processor time grows like wall time; this shows by how much.
    """
    took = []
    for _ in range(_ROUNDS):
        began = time.thread_time()
        _work()
        took.append(time.thread_time() - began)
    return sorted(took)[1]  # the least may be luck


def _work() -> None:
    kept: dict[int, tuple[int, str]] = {}
    for number in range(_STEPS):
        kept[number % 257] = _step(number, str(number))


def _step(number: int, text: str) -> tuple[int, str]:
    return number + len(text), text
