"""What another process imports by ``module:name``, since objects cannot travel there."""

from __future__ import annotations

import re
from importlib import import_module
from types import FunctionType
from typing import Any

from protocol.errors import NotImportable

_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def import_path(value: object, what: str) -> str:
    """``value``, if it is the path of something that another process can import. Raises NotImportable."""
    if not isinstance(value, str):
        kind = type(value).__name__
        raise NotImportable(
            f"{what} is an object ({kind}), which cannot be sent to another process",
            hint='pass where to import it from: "module:name"',
        )
    if _PATH.fullmatch(value) is None:
        raise NotImportable(f"{what}: {value!r} is not of the form module:name")
    if value.startswith("__main__:"):
        raise NotImportable(
            f"{what}: another process has a different __main__",
            hint="put it in its own module",
        )
    return value


def load(path: str, what: str) -> Any:
    """The object that ``path`` names; a class or a function is called, and its result used. Raises
    NotImportable.
    """
    place, _, name = path.partition(":")
    try:
        found: Any = import_module(place)
        for part in name.split("."):
            found = getattr(found, part)
        return found() if isinstance(found, type | FunctionType) else found
    except (Exception, SystemExit) as error:
        why = f"{type(error).__name__}: {error}"
        raise NotImportable(f"{what}: {path} cannot be imported: {why}") from error
