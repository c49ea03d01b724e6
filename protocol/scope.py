"""Scope: what a pod may read and write, as rules over absolute paths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import PurePath
from typing import Literal

from msgspec import Struct

from protocol.errors import InvalidInput
from protocol.foreign import shown
from protocol.guarded import is_steering, owner_of, secret_depth

Permission = Literal["read", "write"]

_LEVEL: dict[Permission | None, int] = {None: 0, "read": 1, "write": 2}
_NAME: tuple[Permission | None, ...] = (None, "read", "write")


class Rule(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One rule of a scope: a target path, a permission, and whether all below it is meant.

    Not ``recursive`` means the target and what lies directly in it.
    """

    target: str
    permission: Permission = "read"
    recursive: bool = True

    def matches(self, path: PurePath) -> bool:
        """Whether the rule speaks of ``path`` (absolute, symlinks resolved)."""
        target, below = _normal(self.target)
        text = str(path)
        if text == target:
            return True
        return text.startswith(below) and (self.recursive or "/" not in text[len(below) :])


@lru_cache(maxsize=4096)
def _normal(target: str) -> tuple[str, str]:
    """A target as the text that a path has, and how the paths below it begin."""
    text = str(PurePath(target))
    return text, text if text.endswith("/") else f"{text}/"


def _text_of(directory: str | PurePath) -> str:
    """Raises InvalidInput."""
    if not isinstance(directory, str | PurePath):
        raise InvalidInput(f"directory: expected a path, got {shown(directory)}")
    return str(directory)


class Scope(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What may be touched: the highest matching ``allow``, capped strictly below any matching
    ``deny``, and never more than ``within``, the scope this one was narrowed from.

    An empty scope allows nothing. What is secret by its name (``.env``, keys, credentials;
    ``protocol/guarded.py``) is allowed only by a rule whose target names it, nothing in a ``.git``
    or a ``.polypod`` may be written, and no rule allows a ``polypod.toml``.
    """

    allow: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()
    within: Scope | None = None

    @classmethod
    def writable(cls, directory: str | PurePath) -> Scope:
        """A scope that allows to read and write ``directory`` and all below."""
        return cls(allow=(Rule(_text_of(directory), "write"),))

    @classmethod
    def readable(cls, directory: str | PurePath) -> Scope:
        """A scope that allows to read ``directory`` and all below."""
        return cls(allow=(Rule(_text_of(directory), "read"),))

    def permission(self, path: PurePath) -> Permission | None:
        """The highest permission for ``path`` (absolute, symlinks resolved), or None. Raises InvalidInput for
        what is not a PurePath.
        """
        if not isinstance(path, PurePath):
            raise InvalidInput(f"path: expected a Path, absolute and resolved, got {shown(path)}")
        depth = secret_depth(path.parts)
        if depth and is_steering(path.name):
            return None
        level = max(
            (
                _LEVEL[rule.permission]
                for rule in self.allow
                if rule.matches(path) and (not depth or len(PurePath(rule.target).parts) >= depth)
            ),
            default=0,
        )
        if level > 1 and any(owner_of(name) for name in path.parts):
            level = 1
        for rule in self.deny:
            if rule.matches(path):
                level = min(level, _LEVEL[rule.permission] - 1)
        if self.within is not None:
            level = min(level, _LEVEL[self.within.permission(path)])
        return _NAME[level]

    def permits(self, path: PurePath, wanted: Permission) -> bool:
        """Whether ``path`` may be touched with the ``wanted`` permission; write includes read. Raises
        InvalidInput.
        """
        if wanted not in _NAME[1:]:
            raise InvalidInput(f"wanted: expected 'read' or 'write', got {shown(wanted)}")
        return _LEVEL[self.permission(path)] >= _LEVEL[wanted]

    def narrow(self, scope: Scope) -> Scope:
        """``scope`` bounded by this one, for a child: no more than either allows. Raises InvalidInput."""
        if not isinstance(scope, Scope):
            raise InvalidInput(f"scope: expected a Scope, got {shown(scope)}")
        bound = self if scope.within is None else self.narrow(scope.within)
        return Scope(scope.allow, scope.deny, bound)


def all_rules(*scopes: Scope) -> Iterator[Rule]:
    """The rules of scopes, and of those that they were narrowed from."""
    for scope in scopes:
        yield from scope.allow
        yield from scope.deny
        if scope.within is not None:
            yield from all_rules(scope.within)


def unnamed(rules: Iterable[Rule]) -> str:
    """A file's name that no target of these rules has in it: it stands for all others."""
    names = {part for rule in rules for part in PurePath(rule.target).parts}
    other = "*"
    while other in names:
        other += "*"
    return other
