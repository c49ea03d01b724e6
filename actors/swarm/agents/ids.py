"""Ids of agents: ``<slug>-<n>``, and how one is found by a part; pure but for the clock's number."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Iterable

from protocol.errors import UnknownAgent
from protocol.text import SHORTENED

#: Characters of the part that says what the agent is about.
_SLUG = 24
#: Numbers there are before one comes again.
_NUMBERS = 1_000_000
_OTHER = re.compile(r"[^a-z0-9]+")


def slug_of(words: str) -> str:
    """The beginning of ``words`` in at most 24 lower-case letters, digits and dashes; ``agent`` if that
    leaves nothing.
    """
    plain = unicodedata.normalize("NFKD", words).encode("ascii", "ignore").decode().lower()
    return _OTHER.sub("-", plain).strip("-")[:_SLUG].strip("-") or "agent"


def first_number() -> int:
    """The number that is tried first: taken from the clock, so that the id of a removed agent is not reused
    soon.
    """
    return time.time_ns() % _NUMBERS


def next_number(number: int) -> int:
    """The number that is tried after one that is taken."""
    return (number + 1) % _NUMBERS


def name_of(agent_id: str) -> str:
    """The slug of an id."""
    return agent_id.rpartition("-")[0]


def pod_of(agent_id: str) -> str:
    """The name of the pod that an agent is, if it is one."""
    return f"{agent_id}.pod"


def find_id(beginning: str, ids: Iterable[str]) -> str:
    """The one id that begins with the text, or that a list has shortened to it (``fix-the…-118204``). An id
    that equals it comes first, then the only agent that was started under that name (``Tests`` beside
    ``tests-slow``). Raises UnknownAgent.
    """
    sign = next((each for each in SHORTENED if each in beginning), SHORTENED[0])
    start, shortened, end = beginning.partition(sign)
    name, named, fitting = slug_of(beginning), [], []
    for each in ids if beginning else ():
        if each == beginning:
            return each
        if name_of(each) == name:
            named.append(each)
        if each.startswith(start) and (not shortened or each.endswith(end)):
            fitting.append(each)
    found = named or fitting
    if len(found) == 1:
        return found[0]
    if not found:
        raise UnknownAgent(f"no agent {beginning!r}", hint="list the agents with polypod swarm ls")
    some = ", ".join(sorted(found)[:8])
    raise UnknownAgent(f"{len(found)} agents match {beginning!r}: {some}", hint="give more of the id")
