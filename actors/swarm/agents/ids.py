"""Ids of agents: ``<slug>-<n>``, and how one is found by a part; pure but for the clock's number."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Iterable

from protocol.errors import UnknownAgent

#: Characters of the part that says what the agent is about.
_SLUG = 24
#: Numbers there are before one comes again.
_NUMBERS = 1_000_000
_OTHER = re.compile(r"[^a-z0-9]+")


def slug_of(words: str) -> str:
    """At most 24 lower-case letters, digits and dashes that begin as ``words`` do; ``agent`` where that
    leaves none.
    """
    plain = unicodedata.normalize("NFKD", words).encode("ascii", "ignore").decode().lower()
    return _OTHER.sub("-", plain).strip("-")[:_SLUG].strip("-") or "agent"


def first_number() -> int:
    """The number that is tried first: the clock's, so that an id of an agent that was removed does not come
    again soon.
    """
    return time.time_ns() % _NUMBERS


def next_number(number: int) -> int:
    """The number that is tried after one that is taken."""
    return (number + 1) % _NUMBERS


def find_id(beginning: str, ids: Iterable[str]) -> str:
    """The one id that begins so, or as a list has shortened it (``fix-the…-118204``); one that is called just
    so comes first. Raises UnknownAgent.
    """
    start, shortened, end = beginning.partition("…")
    fitting = []
    for each in ids:
        if each == beginning:
            return each
        if beginning and each.startswith(start) and (not shortened or each.endswith(end)):
            fitting.append(each)
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise UnknownAgent(f"no agent {beginning!r}", hint="polypod swarm ls lists the agents there are")
    some = ", ".join(sorted(fitting)[:8])
    raise UnknownAgent(f"{len(fitting)} agents fit {beginning!r}: {some}", hint="say more of the id")
