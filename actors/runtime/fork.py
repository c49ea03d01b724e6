"""Keeps a forked child from collecting, and so from closing, the objects that belong to its parent."""

from __future__ import annotations

import contextlib
from typing import Any

#: Kept to the child's end, and past it: what is closed there may be what the parent works with (a database's
#: locks, the selector that both have).
_parents: list[Any] = []


def let_be(*things: Any) -> None:
    """Keep the parent's objects from being collected, even when the interpreter ends."""
    if things and not _parents:
        with contextlib.suppress(ImportError, AttributeError):
            import ctypes  # noqa: PLC0415 - nobody pays for it but a forked child

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(_parents))
    _parents.extend(things)
