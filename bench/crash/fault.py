"""``Fault``: the base class of faults, each of which lasts as long as its ``with``."""

from __future__ import annotations

import abc
from typing import Self


class Fault(abc.ABC):
    """Something wrong with a disk, for as long as its ``with`` lasts."""

    #: Its name in tables.
    name: str
    #: Operations that failed in the last spell, if that can be counted.
    hits = 0

    @abc.abstractmethod
    def __enter__(self) -> Self: ...

    @abc.abstractmethod
    def __exit__(self, *_: object) -> None: ...
