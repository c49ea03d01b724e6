"""Narrowing: whether a scope exceeds the one it is taken from, and what remains of that one; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePath

from msgspec import Struct

from protocol.scope import Permission, Rule, Scope, all_rules, unnamed


class Beyond(Struct, frozen=True):
    """What a scope would allow that the one it is taken from does not: its ``index``-th allow rule, ``rule``,
    asks for ``wanted`` at ``path``. ``denied_by`` is the rule that denies it, None if it is simply not
    allowed.
    """

    index: int
    rule: Rule
    path: PurePath
    wanted: Permission
    denied_by: Rule | None = None

    def __str__(self) -> str:
        """Which rule goes too far, in words."""
        why = "which no rule of this pod's scope allows"
        if self.denied_by is not None:
            why = f"which a rule of this pod's scope denies ({rule_words(self.denied_by)})"
        asked = f"scope.allow[{self.index}] ({rule_words(self.rule)})"
        return f"{asked} would allow {self.wanted} access to {self.path}, {why}"


def rule_words(rule: Rule) -> str:
    """A rule as people name it."""
    return f"{rule.permission} {rule.target}{'' if rule.recursive else ', not recursive'}"


def beyond(granted: Scope, asked: Scope) -> Beyond | None:
    """What ``asked`` would allow, at any path, that ``granted`` does not; None if there is nothing.

    Targets must be absolute and without symlinks. Rules change their verdict only at their targets, so it is
    enough to check each folder on the way to one, a path in it, and a path further below.
    """
    for path in _places([*all_rules(granted, asked)]):
        for index, rule in enumerate(asked.allow):
            wanted = Scope((rule,), asked.deny, asked.within).permission(path)
            if wanted is not None and not granted.permits(path, wanted):
                return Beyond(index, rule, path, wanted, _denying(granted, path, wanted))
    return None


def withdrawn(scope: Scope, given: Iterable[Scope]) -> Scope:
    """``scope`` without write permission where the scopes ``given`` away have it. What those deny below a
    target they may write is withdrawn too.
    """
    denied = tuple(write for each in given for write in writes(each))
    return Scope(scope.allow, (*scope.deny, *denied), scope.within) if denied else scope


def writes(scope: Scope) -> tuple[Rule, ...]:
    """The rules of a scope that allow writing."""
    return tuple(rule for rule in scope.allow if rule.permission == "write")


def _places(rules: Sequence[Rule]) -> list[PurePath]:
    """One path of each kind that these rules can distinguish."""
    targets = [PurePath(rule.target) for rule in rules]
    known = {each for target in targets for each in (target, *target.parents)}
    other = unnamed(rules)
    return [place for path in sorted(known) for place in (path, path / other, path / other / other)]


def _denying(scope: Scope, path: PurePath, wanted: Permission) -> Rule | None:
    """The rule that denies ``wanted`` at ``path``, if it would be allowed otherwise."""
    for rule in scope.deny:
        if rule.matches(path) and (wanted == "write" or rule.permission == "read"):
            return rule
    return None if scope.within is None else _denying(scope.within, path, wanted)
