"""Approval rules: which tool calls run, which need a person's approval, and which are denied; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal, Protocol

from msgspec import Struct

Policy = Literal["allow", "ask", "deny"]


class ProgramText(Protocol):
    """A shell program among the arguments of a call. A rule that allows must certainly match all of it; one
    that asks or denies need only possibly match some command in it.
    """

    def certainly(self, pattern: str) -> bool:
        """Whether it is one plain command, and the pattern fits that."""

    def perhaps(self, pattern: str) -> bool:
        """Whether the pattern fits all of it, or any command in it, as far as is known."""


_NO_PROGRAMS: Mapping[str, ProgramText] = {}


class ApprovalRule(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One rule, ``[[approval]]``: what happens to the calls that it matches.

    ``tool`` is the name of a tool, or a pattern of names. ``match`` says what the arguments must be: a text
    is a pattern, in which ``*`` stands for any text and ``?`` for one character; any other value must be
    equal. For a shell program the pattern is compared with the commands in it, as words separated by one
    blank. With ``exact`` the arguments must be those of ``match`` and no others, and no text in it is a
    pattern.
    """

    tool: str
    policy: Policy
    match: dict[str, Any] = {}
    exact: bool = False

    def names(self, tool: str) -> bool:
        """Whether the rule is about calls of ``tool``, whatever their arguments."""
        return fits(self.tool, tool)

    def matches(
        self, tool: str, arguments: Mapping[str, Any], programs: Mapping[str, ProgramText] = _NO_PROGRAMS
    ) -> bool:
        """Whether the rule matches a call of ``tool`` with ``arguments``, as the model gave them;
        ``programs`` are those arguments that are shell programs.
        """
        if not self.names(tool):
            return False
        if self.exact:
            return _equal(self.match, arguments)
        return all(
            self._means(programs[key], wanted)
            if key in programs and isinstance(wanted, str)
            else key in arguments and _answers(wanted, arguments[key])
            for key, wanted in self.match.items()
        )

    def _means(self, program: ProgramText, pattern: str) -> bool:
        return program.certainly(pattern) if self.policy == "allow" else program.perhaps(pattern)


class ApprovalsSection(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[approvals]``: what happens to calls that no rule matches, and to calls that need approval while
    nobody is subscribed to the question: they are denied, or wait until somebody comes. A question that is
    not answered after ``timeout`` seconds is denied; None means never.
    """

    default: Policy = "allow"
    headless: Literal["deny", "wait"] = "deny"
    timeout: float | None = None


class ApprovalAnswer(Struct, frozen=True, omit_defaults=True):
    """An answer to a call that waits for approval, kept in the store for whichever process has the pod.

    ``at`` is when it was given (seconds since the epoch); ``by``, ``arguments`` and ``note`` are those of
    ``ApprovalResolved``, and ``always`` allows the same call from then on. ``proof`` shows that its sender
    has the token that ``ApprovalRequested.token`` names.
    """

    approval_id: str
    session_id: str
    approved: bool
    at: float
    by: str = "person"
    always: bool = False
    arguments: dict[str, Any] | None = None
    note: str | None = None
    proof: str | None = None


#: What lets calls run that no rule speaks of.
A_RULE = "an [[approval]] rule can allow it"


class ApprovalVerdict(Struct, frozen=True, gc=False):
    """What happens to a call, which rule or setting says so, in words, and what would let it run."""

    policy: Policy
    why: str
    hint: str = ""


def verdict(
    rules: Iterable[ApprovalRule],
    default: Policy,
    tool: str,
    arguments: Mapping[str, Any],
    programs: Mapping[str, ProgramText] = _NO_PROGRAMS,
    unbounded: ApprovalVerdict | None = None,
) -> ApprovalVerdict:
    """What happens to a call: a rule that denies it wins, else the first rule that matches, else the verdict
    for one that is ``unbounded``, else ``default``.
    """
    matching = [rule for rule in rules if rule.matches(tool, arguments, programs)]
    decisive = next((rule for rule in matching if rule.policy == "deny"), None) or next(iter(matching), None)
    if decisive is not None:
        before = "an [[approval]] rule before that one can allow it" if decisive.policy == "ask" else ""
        return ApprovalVerdict(decisive.policy, in_words(decisive), before)
    if unbounded is not None:
        return unbounded
    return ApprovalVerdict(default, f'[approvals] default = "{default}", and no rule matches', A_RULE)


def in_words(rule: ApprovalRule) -> str:
    """A rule for people, on one line."""
    shown = ", ".join(f"{key} = {value!r:.80}" for key, value in rule.match.items())
    return f"the rule {rule.policy} {rule.tool!r}{f' with {shown}' if shown else ''}"


def _answers(wanted: Any, given: Any) -> bool:
    if isinstance(wanted, str):
        return isinstance(given, str) and fits(wanted, given)
    return _equal(wanted, given)


def _equal(one: Any, other: Any) -> bool:
    """Whether two values of JSON are equal; ``1`` is ``1.0``, but never ``true``."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


def fits(pattern: str, text: str) -> bool:
    """Whether a pattern fits all of a text."""
    if "*" not in pattern and "?" not in pattern:
        return pattern == text
    return _compiled(pattern).fullmatch(text) is not None


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    # Atomic, so that no pattern takes more than quadratic time: where a piece fits first is the place.
    first, *pieces = re.split(r"\*+", pattern)
    if not pieces:
        return re.compile(_piece(first), re.DOTALL)
    *middle, last = pieces
    inner = "".join(f"(?>.*?{_piece(each)})" for each in middle)
    return re.compile(f"{_piece(first)}{inner}.*{_piece(last)}", re.DOTALL)


def _piece(text: str) -> str:
    return re.escape(text).replace(r"\?", ".")
