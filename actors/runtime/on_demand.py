"""Lazy imports: a package's ``__getattr__`` that imports a name's module when the name is first used, and its
``__dir__``, which lists such names without importing them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def on_demand(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of a package that has these names to give, each of its module."""

    def __getattr__(wanted: str) -> Any:  # noqa: N807 - what it stands for there
        if wanted not in modules:
            raise AttributeError(f"module {package!r} has no attribute {wanted!r}")
        value = getattr(import_module(modules[wanted]), wanted)
        setattr(sys.modules[package], wanted, value)  # found without this from now on
        return value

    def __dir__() -> list[str]:  # noqa: N807 - as above
        return sorted({*vars(sys.modules[package]), *modules})

    return __getattr__, __dir__
