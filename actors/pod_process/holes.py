"""``fill_holes``: fills the free places in a process's memory, so that what it allocates later lies together.

Between what a process holds there are free places of a few bytes each. What a forked process puts into them
makes it a copy of a page each time; filled beforehand, they leave it pages of its own.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

#: Python's own allocator has what is no larger, in steps of so many bytes; the C library has the rest.
_PYTHONS, _STEP = 512, 16
#: Largest of the C library's blocks that are looked at, and what it keeps with each.
_LARGEST, _OF_LIBRARY = 1024, 8
#: Bytes in a row outside of holes, and bytes of blocks of one size after which to give up: some allocators
#: place nothing in a row.
_ROW, _MOST = 4096, 1 << 18

_filled: list[bytes] = []


def fill_holes() -> None:
    """Use up what is free between objects and blocks in use; it is never given back."""
    of_bytes = sys.getsizeof(b"")

    def put_object(size: int) -> int:
        _filled.append(bytes(size - of_bytes))
        return id(_filled[-1])

    allocate = ctypes.pythonapi.PyMem_RawMalloc
    allocate.restype, allocate.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    for size in range(_PYTHONS, of_bytes + _STEP, -_STEP):
        _fill(put_object, size)
    for size in range(_LARGEST, 2 * _STEP, -_STEP):
        _fill(lambda size: allocate(size - _OF_LIBRARY), size)


def _fill(allocate: Callable[[int], int], size: int) -> None:
    """Allocate places of ``size`` bytes until they come one behind the other."""
    row, last = 0, 0
    for _ in range(_MOST // size):
        place = allocate(size)
        row = row + size if place - last == size else 0
        if row >= _ROW:
            return
        last = place
