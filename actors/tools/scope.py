"""The one scope check: from the words a model gives for a path to a place it may touch."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from actors.tools.alike import real_path
from protocol.errors import ScopeRefused
from protocol.guarded import is_steering, owner_of, secret_depth
from protocol.scope import Permission, Rule, Scope

#: How the words of a refusal begin, also in the result that a model gets.
REFUSED = "not allowed to "
_SHOWN_RULES = 6


def resolve(text: str, pwd: Path, *, expand_user: bool = False) -> Path:
    """The absolute place that ``text`` names, seen from ``pwd``: every symlink on the way followed.

    What does not exist yet is resolved as far as it does, so a file to be created below a symlink,
    or through a dangling one, is placed where the system would create it. ``~`` is an ordinary
    character unless ``expand_user``. Raises ScopeRefused for what names no place: an empty text, a
    NUL byte, text that no file system can hold, symlinks that go in circles.
    """
    if not text:
        raise ScopeRefused("the path is empty", hint="'.' is the working directory")
    if "\0" in text:
        raise ScopeRefused(f"the path {text!r} contains a NUL byte")
    try:
        path = _followed(pwd / (Path(text).expanduser() if expand_user else text), text)
    except (ValueError, RuntimeError, OSError) as error:
        # a surrogate; a home directory that is not known; a part that went while it was looked at
        raise ScopeRefused(f"the path {text!r} is invalid: {error}") from error
    return path


class Located(Struct, frozen=True):
    """A place that may be touched. ``note`` says where it has another name than it was asked for by."""

    path: Path
    note: str = ""


def check(scope: Scope, pwd: Path, text: str, permission: Permission) -> Path:
    """The resolved path, where ``scope`` permits it; ScopeRefused says what is allowed otherwise.

    The rules of ``scope`` must be ``resolved``. What is returned holds no symlink at the time of the
    check; open it by ``place`` functions, which refuse one that was put there since.
    """
    return locate(scope, pwd, text, permission).path


def locate(scope: Scope, pwd: Path, text: str, permission: Permission) -> Located:
    """As ``check``, with a note. What does not exist is the one name that looks the same, if there is
    one: composed characters for decomposed ones, other blanks, other quotes.
    """
    path = resolve(text, pwd)
    _require(scope, path, text, permission)
    real = real_path(path, lambda folder: scope.permits(folder, "read"))
    if real == path:
        return Located(path)
    _require(scope, real, text, permission)
    return Located(real, f"[the path that exists is {str(real)!a}, which looks the same as the one you gave]")


def _require(scope: Scope, path: Path, text: str, permission: Permission) -> None:
    if not scope.permits(path, permission):
        raise refusal(scope, path, text, permission)
    if permission == "write" and (folder := _git_folder(path)) is not None:
        raise ScopeRefused(
            f"{REFUSED}write {text!r}: {folder} is, or would become, a separate git repository "
            "(you may read it)",
            hint=_owned("git"),
        )


def _owned(owner: str) -> str:
    return f"only {owner} itself may write its own files"


def _git_folder(path: Path) -> Path | None:
    """The folder around ``path`` that git takes for its own whatever it is called, or would take with
    a file at ``path``: a repository made so could run commands for who looks at it with git.
    """
    for folder in path.parents:
        below = path.relative_to(folder).parts
        if _has(folder, "HEAD", below) and (
            _has(folder, "commondir", below)
            or (_has(folder, "refs", below) and _has(folder, "objects", below))
        ):
            return folder
    return None


def _has(folder: Path, name: str, below: tuple[str, ...]) -> bool:
    """Whether ``name`` is in ``folder``, or comes to be there with a file at ``below``."""
    return below[0].casefold() == name.casefold() or os.path.lexists(folder / name)


def resolved(scope: Scope) -> Scope:
    """``scope`` with the symlinks in its own rules' targets followed, once, when a pod is assembled."""

    def followed(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        return tuple(msgspec.structs.replace(r, target=_real(r.target)) for r in rules)

    within = None if scope.within is None else resolved(scope.within)
    return Scope(followed(scope.allow), followed(scope.deny), within)


def fence(places: Iterable[Path]) -> tuple[Rule, ...]:
    """Rules that deny ``places`` and all below them, symlinks on the way to them followed."""
    return tuple(Rule(os.path.realpath(place)) for place in dict.fromkeys(places))


def fenced(scope: Scope, rules: tuple[Rule, ...]) -> Scope:
    """``scope`` without what ``rules`` deny."""
    return Scope(scope.allow, (*scope.deny, *rules), scope.within) if rules else scope


def _real(target: str) -> str:
    path = Path(os.path.realpath(target))
    try:
        return str(real_path(path, lambda _: True))
    except ScopeRefused:
        return str(path)  # of several that look the same none is meant


def refusal(scope: Scope, path: Path, text: str, permission: Permission) -> ScopeRefused:
    """The error that says which path was refused, and what is allowed instead."""
    shown = repr(text) if str(path) == text else f"{text!r} ({path})"
    readable = permission == "write" and scope.permits(path, "read")
    less = " (you may read it)" if readable else ""
    return ScopeRefused(f"{REFUSED}{permission} {shown}{less}", hint=_hint(scope, path, readable=readable))


def _hint(scope: Scope, path: Path, *, readable: bool) -> str:
    owner = next(filter(None, map(owner_of, path.parts)), None)
    if readable and owner is not None:
        return _owned(owner)
    depth = 0 if is_steering(path.name) else secret_depth(path.parts)
    if depth and not readable:
        secret = Path(*path.parts[:depth])
        return f"{secret.name} is treated as a secret: the user can allow {secret} by name in the scope"
    if is_steering(path.name):
        return "it configures polypod, so no rule can allow it"
    denied = next((rule for rule in scope.deny if rule.permission == "read" and rule.matches(path)), None)
    return _allowed(scope) if denied is None else f"the scope denies {denied.target}, whatever else it allows"


def uniform_below(scope: Scope, folder: Path) -> bool:
    """Whether all that lies below ``folder`` has one and the same permission: no rule begins there."""

    def uniform(rule: Rule) -> bool:
        target = Path(rule.target)
        return rule.recursive if target == folder else folder not in target.parents

    mine = all(uniform(rule) for rule in (*scope.allow, *scope.deny))
    return mine and (scope.within is None or uniform_below(scope.within, folder))


def _allowed(scope: Scope) -> str:
    """The rules that allow something, in words."""
    words = []
    for rule in scope.allow:
        granted = scope.permission(Path(rule.target))
        if granted is not None:
            below = " and everything below" if rule.recursive else ""
            words.append(f"{granted} {rule.target}{below}")
    if not words:
        return "the scope allows nothing"
    rest = len(words) - _SHOWN_RULES
    more = f", and {rest} more" if rest > 0 else ""
    return f"allowed: {', '.join(words[:_SHOWN_RULES])}{more}"


def _followed(path: Path, text: str) -> Path:
    """``path`` with all symlinks followed, as far as it exists. Raises ScopeRefused for a circle."""
    try:
        return Path(os.path.realpath(path, strict=True))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _circle(text) from error
    followed = Path(os.path.realpath(path))
    _refuse_circle(followed, text)
    return followed


def _circle(text: str) -> ScopeRefused:
    return ScopeRefused(f"the path {text!r} leads through a loop of symlinks")


def _refuse_circle(path: Path, text: str) -> None:
    """At a circle ``realpath`` gives up: what comes after it is put together without being looked at,
    so ``circle/../link`` would come out as ``link``, not as where that leads.
    """
    if os.path.realpath(path) != str(path):
        raise _circle(text)
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _circle(text) from error
