"""Checks the arguments that programs give, and refuses unusable ones with an error that names them."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from protocol.errors import InvalidInput
from protocol.foreign import shown
from protocol.text import encodable


def several(what: str, given: Iterable[Any]) -> tuple[Any, ...]:
    """The members of the list given as ``what``; a text is not a list. Raises InvalidInput."""
    if type(given) is tuple or type(given) is list:  # as nearly always, and quicker to ask for
        return tuple(given)
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise InvalidInput(f"{what}: expected a list, got {shown(given)}", hint=f"write {what}=[…]")
    return tuple(given)


def table_of(what: str, given: Mapping[Any, Any]) -> dict[Any, Any]:
    """The members of the dict given as ``what``. Raises InvalidInput."""
    if not isinstance(given, Mapping):
        raise InvalidInput(f"{what}: expected a dict, got {shown(given)}")
    return dict(given)


def text_of(what: str, given: object) -> str:
    """The text given as ``what``, if UTF-8 can encode it. Raises InvalidInput."""
    if not isinstance(given, str):
        raise InvalidInput(f"{what}: expected a string, got {shown(given)}")
    return encodable(given)


def path_of(what: str, given: str | os.PathLike[str]) -> Path:
    """The path given as ``what``, with ``~`` and ``~name`` expanded. Raises InvalidInput for a name that no
    file can have, and for the home of an unknown user.
    """
    try:
        path = Path(given).expanduser()
        possible = b"\0" not in os.fsencode(path)
    except (TypeError, UnicodeEncodeError):
        possible = False
    except RuntimeError as error:
        raise InvalidInput(
            f"{what}: no home folder is known for {shown(str(given))}",
            hint="for a file of that name, write ./~…",
        ) from error
    if not possible:
        raise InvalidInput(f"{what}: expected a path, got {shown(given)}")
    return path


def command_of(what: str, given: str | Sequence[str | os.PathLike[str]]) -> list[str]:
    """The program and arguments given as ``what``: a list, or a text as a shell splits it. Raises
    InvalidInput.
    """
    import shlex  # noqa: PLC0415 - paid for by whoever gives one

    try:
        words = shlex.split(given) if isinstance(given, str) else [*map(os.fspath, several(what, given))]
    except (TypeError, ValueError) as error:  # no path; a quotation that does not end
        raise InvalidInput(f"{what}: expected a program and its arguments, got {shown(given)}") from error
    return [text_of(what, each) for each in words]


def is_number(given: object) -> TypeGuard[int | float]:
    """Whether it is a number; True and False are not."""
    return isinstance(given, int | float) and not isinstance(given, bool)


def is_time(given: object) -> TypeGuard[int | float]:
    """Whether it is a finite number of seconds, 0 or more."""
    try:
        return is_number(given) and 0 <= float(given) < math.inf
    except OverflowError:  # an int that no float can be
        return False


def check_seconds(what: str, given: object, *, zero: bool = True, words: str = "") -> None:
    """Raise InvalidInput if what was given as ``what`` is not a number, and ValueError if it is not a time:
    negative, 0 unless ``zero``, or infinite.
    """
    if not is_number(given):
        raise InvalidInput(f"{what}: expected a number of seconds, got {shown(given)}")
    if not is_time(given) or (not zero and given == 0):
        bound = ", 0 or more" if zero else " above 0"
        raise ValueError(f"{what} must be a number of seconds{bound}{words}, not {shown(given)}")


def wait_of(what: str, given: object) -> float | None:
    """How many seconds to wait at most, given as ``what``; None means for ever, a negative number not at all.
    Raises InvalidInput.
    """
    if given is None:
        return None
    if not is_number(given) or given != given:  # noqa: PLR0124 - nan is not a number of any
        raise InvalidInput(f"{what}: expected a number of seconds, or None, got {shown(given)}")
    return None if given > threading.TIMEOUT_MAX else float(max(given, -1))


def check_count(what: str, given: object, least: int, of: str) -> None:
    """Raise InvalidInput if what was given as ``what`` is not a whole number, and ValueError if it is less
    than ``least``; ``of`` says what is counted.
    """
    if not isinstance(given, int) or isinstance(given, bool):
        raise InvalidInput(f"{what}: expected a number of {of}, got {shown(given)}")
    if given < least:
        raise ValueError(f"{what} must be a number of {of}, {least} or more, not {shown(given)}")
