"""Reads files that people name, whatever they turn out to be: a folder, a pipe, a device, a socket."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_file(path: str | Path, most: int, *, pipes: bool = False) -> bytes:
    """At most ``most`` bytes of a file. With ``pipes`` also what is being written to a pipe (the shell's
    ``<(command)`` is one), and what a device such as ``/dev/stdin`` gives. Waits for nobody who may begin to
    write. Raises OSError, whose ``strerror`` says what stands there instead of a file.
    """
    handle = _open(path)
    try:
        mode = os.fstat(handle).st_mode
        start = b""
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "it is a directory")
        if not stat.S_ISREG(mode):
            if not pipes:
                raise OSError(errno.EINVAL, "it is not a regular file")
            start = _begin(handle, most, mode)
        with os.fdopen(handle, "rb", closefd=False) as file:
            return start + file.read(most - len(start))
    finally:
        os.close(handle)


def _open(path: str | Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a zero byte, half a character
        raise OSError(errno.EINVAL, "it is not a valid file name") from error
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "it is a socket, or a device that does not exist") from error
        raise


def _begin(handle: int, most: int, mode: int) -> bytes:
    """What comes first, where anybody writes; the rest is waited for."""
    try:
        start = os.read(handle, most)
    except BlockingIOError:
        start = b""
    else:
        if not start and stat.S_ISFIFO(mode):
            raise OSError(errno.ENODATA, "it is a pipe that nothing writes to")
    os.set_blocking(handle, True)
    return start
