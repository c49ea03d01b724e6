"""Forbids system calls to a confined program, by a seccomp filter that the kernel runs at each of its calls.

Refused is what looks into other processes or kernel keys, changes or circumvents the confinement, or makes a
file that others would run as its owner. Programs of 32 bits have other numbers for all calls, and are killed.
"""

from __future__ import annotations

import errno
import functools
import platform
import struct
import sys
from array import array
from itertools import chain
from typing import NamedTuple

from actors.runtime.children.kernel import PR_SET_SECCOMP, call


class _Architecture(NamedTuple):
    """An architecture: how filters name it, and its numbers of system calls."""

    audit: int
    #: The first number of calls of a foreign convention (x32), which the filter does not know.
    foreign: int | None
    clone: int
    ioctl: int
    socket: int
    socketpair: int
    refused: tuple[int, ...]
    #: Calls that take a file's mode, each with the index of that argument.
    modes: tuple[tuple[int, int], ...]
    #: Calls that take a mode when they create a file, each with the indexes of flags and mode.
    opens: tuple[tuple[int, int, int], ...]


#: The numbers of what is refused on x86-64 and on 64-bit ARM. Access to other processes: ptrace,
#: process_vm_readv, process_vm_writev, process_madvise, kcmp, pidfd_getfd, perf_event_open.
_PROCESSES = ((101, 310, 311, 440, 312, 438, 298), (117, 270, 271, 440, 272, 438, 241))
#: keyctl, add_key, request_key.
_KEYS = ((250, 248, 249), (219, 217, 218))
#: mount, umount2, pivot_root, chroot, setns, unshare, and the newer ones: open_tree, move_mount, fsopen,
#: fsconfig, fsmount, fspick, mount_setattr, open_tree_attr.
_NEW_MOUNTS = (428, 429, 430, 431, 432, 433, 442, 467)
_MOUNTS = ((165, 166, 155, 161, 308, 272, *_NEW_MOUNTS), (40, 39, 41, 51, 268, 97, *_NEW_MOUNTS))
#: Opening files without a path: open_by_handle_at, fanotify_init.
_FILES = ((304, 300), (265, 262))
#: swapon, swapoff, quotactl, quotactl_fd, reboot, acct, syslog, vhangup, settimeofday, clock_settime; and
#: iopl, ioperm.
_MACHINE = (
    (167, 168, 179, 443, 169, 163, 103, 153, 164, 227, 172, 173),
    (224, 225, 60, 443, 142, 89, 116, 58, 170, 112),
)
#: bpf, userfaultfd, kexec_load, kexec_file_load, init_module, finit_module, delete_module.
_KERNEL = ((321, 323, 246, 320, 175, 313, 176), (280, 282, 104, 294, 105, 273, 106))
_X86_64, _ARM_64 = (
    tuple(
        chain.from_iterable(group[which] for group in (_PROCESSES, _KEYS, _MOUNTS, _FILES, _MACHINE, _KERNEL))
    )
    for which in (0, 1)
)
#: chmod, fchmod, fchmodat, fchmodat2, mknod, mknodat, creat; and open, openat. ARM has those with "f" or "at"
_MODES = (
    ((90, 1), (91, 1), (268, 2), (452, 2), (133, 1), (259, 2), (85, 1)),
    ((52, 1), (53, 2), (452, 2), (33, 2)),
)
_OPENS = (((2, 1, 2), (257, 2, 3)), ((56, 2, 3),))
_ARCHITECTURES = {
    "x86_64": _Architecture(0xC000003E, 0x40000000, 56, 16, 41, 53, _X86_64, _MODES[0], _OPENS[0]),
    "aarch64": _Architecture(0xC00000B7, None, 220, 29, 198, 199, _ARM_64, _MODES[1], _OPENS[1]),
}
#: clone3 and openat2, whose flags a filter cannot see: programs fall back to clone and openat. io_uring
#: (three calls), whose requests no filter sees.
_UNKNOWN = (435, 437, 425, 426, 427)
#: S_ISUID and S_ISGID: outside the sandbox such a file runs as its owner, or with its group.
_AS_OWNER = 0o6000
#: O_CREAT and __O_TMPFILE.
_MAKES_A_FILE = 0o20000100
#: All of clone's flags that create a namespace.
_NEW_NAMESPACES = 0x7E020000
#: TIOCSTI and TIOCLINUX type into a terminal, even into that of a shell outside.
_TYPES = (0x5412, 0x541C)
#: Address families: local sockets; the internet, and netlink for the list of addresses.
_UNIX, _FAMILIES = 1, (2, 10, 16)
_DATAGRAM, _OF_KIND = 2, 0xF

_LARGEST_OF_32_BITS = 0x7FFFFFFF
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_REFUSE, _NO_SUCH_CALL = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16


def is_known() -> bool:
    """Whether there is a filter for this machine: Linux on a known kind of processor."""
    if sys.platform != "linux":
        return False
    return platform.machine() in _ARCHITECTURES and sys.maxsize > _LARGEST_OF_32_BITS


@functools.cache
def filter_of(*, network: bool, local_sockets: bool, machine: str | None = None) -> bytes:
    """The filter as the kernel takes it.

    With ``network`` sockets are allowed, but local ones (by path or abstract name) only with
    ``local_sockets``. Without it only connected pairs are. Raises KeyError if ``machine`` (by default this
    one) is not known.
    """
    of = _ARCHITECTURES[machine or platform.machine()]
    code = [_step(_LOAD, _ARCHITECTURE_AT), _step(_EQUAL, of.audit, 1), _step(_RETURN, _KILL)]
    code.append(_step(_LOAD, _NUMBER_AT))
    if of.foreign is not None:
        code += [_step(_AT_LEAST, of.foreign, 0, 1), _step(_RETURN, _REFUSE)]
    calls = {each: [_step(_RETURN, _REFUSE)] for each in of.refused}
    calls |= {each: [_step(_RETURN, _NO_SUCH_CALL)] for each in _UNKNOWN}
    calls[of.clone] = [_argument(0), _step(_ANY_BIT, _NEW_NAMESPACES, 0, 1), _step(_RETURN, _REFUSE)]
    calls[of.ioctl] = [_argument(1), *_when(_TYPES, _REFUSE)]
    calls |= {each: _unless_as_owner(mode) for each, mode in of.modes}
    for each, flags, mode in of.opens:
        checked = _unless_as_owner(mode)
        calls[each] = [_argument(flags), _step(_ANY_BIT, _MAKES_A_FILE, 0, len(checked)), *checked]
    families = () if not network else (_UNIX, *_FAMILIES) if local_sockets else _FAMILIES
    calls[of.socket] = [_argument(0), *_when(families, _ALLOW), _step(_RETURN, _REFUSE)]
    if not (network and local_sockets):
        # A pair of datagram sockets is connected, and can still send to any other local one.
        calls[of.socketpair] = [_argument(1), _step(_AND, _OF_KIND), *_when((_DATAGRAM,), _REFUSE)]
    return b"".join([*code, *_search(_runs(calls))])


def install(code: bytes) -> None:
    """Have the kernel run the filter at each system call of this process and of everything it starts, for
    good.

    Requires ``no_new_privs``. Raises OSError.
    """
    kept = array("B", code)
    program = struct.pack("HxxxxxxP", len(code) // 8, kept.buffer_info()[0])
    call("prctl", PR_SET_SECCOMP, 2, program, 0, 0)


def _step(code: int, value: int, on_true: int = 0, on_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, on_true, on_false, value)


def _when(values: tuple[int, ...], result: int) -> list[bytes]:
    """Filter steps that return ``result`` for each of these values."""
    return [step for each in values for step in (_step(_EQUAL, each, 0, 1), _step(_RETURN, result))]


def _unless_as_owner(mode: int) -> list[bytes]:
    """Filter steps that refuse a call whose argument ``mode`` would make a file run as its owner."""
    return [_argument(mode), _step(_ANY_BIT, _AS_OWNER, 0, 1), _step(_RETURN, _REFUSE)]


def _argument(number: int) -> bytes:
    return _step(_LOAD, _ARGUMENTS_AT + 8 * number)


def _runs(calls: dict[int, list[bytes]]) -> list[tuple[int, int, list[bytes]]]:
    """Group the calls into runs of consecutive numbers with the same steps: first, last, steps."""
    runs: list[tuple[int, int, list[bytes]]] = []
    for number, steps in sorted(calls.items()):
        if runs and runs[-1][1] == number - 1 and runs[-1][2] == steps:
            runs[-1] = (runs[-1][0], number, steps)
        else:
            runs.append((number, number, steps))
    return runs


def _search(runs: list[tuple[int, int, list[bytes]]]) -> list[bytes]:
    """Filter steps that find a call by binary search, since the kernel runs them at every call."""
    if len(runs) == 1:
        [(first, last, steps)] = runs
        found = [_step(_EQUAL, first, 0, len(steps))]
        if first != last:
            found = [_step(_AT_LEAST, first, 0, len(steps) + 1), _step(_AT_LEAST, last + 1, len(steps))]
        return [*found, *steps, _step(_RETURN, _ALLOW)]
    middle = len(runs) // 2
    low, high = _search(runs[:middle]), _search(runs[middle:])
    return [_step(_AT_LEAST, runs[middle][0], len(low)), *low, *high]
