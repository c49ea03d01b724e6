"""What a fault is: something that goes wrong for as long as its ``with`` lasts."""

from __future__ import annotations

import abc
from typing import Self


class Fault(abc.ABC):
    """Something wrong with a disk, for as long as its ``with`` lasts."""

    #: What it is called in tables.
    name: str
    #: Operations that failed in the last spell, where that can be counted.
    hits = 0

    @abc.abstractmethod
    def __enter__(self) -> Self: ...

    @abc.abstractmethod
    def __exit__(self, *_: object) -> None: ...
