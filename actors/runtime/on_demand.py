"""Lazy imports: a package's ``__getattr__`` that imports a name's module when the name is first used."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def on_demand(package: str, name: str, module: str) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package that has one name to give, out of a ``module`` of its own."""

    def __getattr__(wanted: str) -> Any:  # noqa: N807 - what it stands for there
        if wanted != name:
            raise AttributeError(f"module {package!r} has no attribute {wanted!r}")
        return getattr(import_module(f"{package}.{module}"), name)

    return __getattr__
