"""``Confinement``: what a child may touch, for the kernel to hold it to."""

from __future__ import annotations

from msgspec import Struct


class Limits(Struct, frozen=True):
    """What a child may use: ``memory`` bytes, ``cpu`` seconds and files of ``file_size`` bytes by each of its
    processes, and ``processes`` at a time. None is no limit.
    """

    memory: int | None = None
    cpu: int | None = None
    processes: int | None = None
    file_size: int | None = None


class Confinement(Struct, frozen=True):
    """The files that a child sees, and what else it may do. All paths are absolute, and symlinks in them
    followed.

    ``readable`` and ``writable`` are files and folders with all below; nothing else is there. ``denied`` and
    ``read_only`` lie below them, and win; those that do not exist stay so. ``home`` is a folder of
    the child's own, which is its HOME, with a ``tmp`` that it sees as ``/tmp``. ``links`` are symlinks that
    lead to what it sees: their path, and where they point. Without ``network`` it reaches no socket but
    those that it makes in pairs.
    """

    home: str
    writable: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    read_only: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    network: bool = False
    limits: Limits = Limits()
