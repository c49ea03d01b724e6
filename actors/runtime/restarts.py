"""How often something may be started again, counted as OTP's supervisors do; pure."""

from __future__ import annotations

from msgspec import Struct


class Limits(Struct, frozen=True):
    """At most ``max_restarts`` within ``window_seconds``."""

    max_restarts: int
    window_seconds: float


def count_restart(times: tuple[float, ...], now: float, limits: Limits) -> tuple[float, ...] | None:
    """The times of the restarts that count, with one ``now``; None where that would be one too many.

    As OTP's supervisors count: those of the last ``window_seconds``, the oldest moment included.
    """
    recent = (*(each for each in times if now - each <= limits.window_seconds), now)
    return recent if len(recent) <= limits.max_restarts else None
