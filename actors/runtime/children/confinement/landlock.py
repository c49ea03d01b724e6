"""Restricts file access with Landlock: kernel rules for a process and everything it starts, in addition to
all others.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable

from actors.runtime.children.kernel import (
    LANDLOCK_ADD_RULE,
    LANDLOCK_CREATE_RULESET,
    LANDLOCK_RESTRICT_SELF,
    system_call,
)

#: The first version that bounds truncation, and the first that bounds signals and abstract sockets.
TRUNCATES, SCOPES = 3, 6
_ASK_VERSION = 1
_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL_DEVICE = 1 << 14, 1 << 15
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEVICE
#: The number of access rights that each version knows.
_KNOWN = {3: 15, 4: 15}
_KNOWN_SINCE_5 = 16
_TCP = 0b11
_SIGNALS_AND_ABSTRACT_SOCKETS = 0b11


def version() -> int:
    """The version of the kernel's Landlock; 0 if it has none."""
    try:
        return system_call(LANDLOCK_CREATE_RULESET, None, 0, _ASK_VERSION)
    except (OSError, KeyError):  # no such call, or not Linux
        return 0


def restrict(readable: Iterable[bytes], writable: Iterable[bytes], *, network: bool) -> None:
    """Restrict this process to files below these, for good; what does not exist is skipped. Raises OSError.

    Requires ``no_new_privs``, and a version from TRUNCATES on.
    """
    known = version()
    everything = (1 << _KNOWN.get(known, _KNOWN_SINCE_5)) - 1
    attributes = struct.pack("Q", everything)
    if known > TRUNCATES:
        attributes += struct.pack("Q", 0 if network else _TCP)
    if known >= SCOPES:
        attributes += struct.pack("Q", _SIGNALS_AND_ABSTRACT_SOCKETS)
    rules = system_call(LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for paths, access in ((readable, _READ), (writable, everything)):
            for path in paths:
                _allow(rules, path, access)
        system_call(LANDLOCK_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def _allow(rules: int, path: bytes, access: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            access &= _OF_FILES
        system_call(LANDLOCK_ADD_RULE, rules, _BENEATH, struct.pack("=Qi", access, place), 0)
    finally:
        os.close(place)
