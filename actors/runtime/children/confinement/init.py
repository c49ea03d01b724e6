"""``Init``: the first process of a namespace of processes, with which all others of that end."""

from __future__ import annotations

import _thread
import contextlib
import errno
import functools
import os
import signal
import socket

from actors.runtime.children.confinement.mounts import new_processes, see_processes_alone
from actors.runtime.children.confinement.privileges import drop_bounds
from actors.runtime.children.frames import receive
from actors.runtime.children.kernel import (
    CLOSE_RANGE,
    PR_SET_DUMPABLE,
    call,
    end_with_parent,
    forget_children,
    system_call,
)

_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000
_SYS_ADMIN = 21
_ALL = 0xFFFFFFFF
#: More than a process's status has.
_STATUS = 16384
_READ = 16
#: What it says of other processes in its namespace.
SOME, NONE = b"+", b"-"
#: What it is asked for that; else it is a number of processes.
_ASK = b"?"
#: The version of Linux from which on each namespace has a bound of the numbers of its processes, and the
#: greatest that it can have. Numbers below ``_RESERVED`` are given once only.
_BOUND_EACH, _GREATEST_BOUND, _RESERVED = (6, 14), 1 << 22, 300


@functools.cache
def become_able() -> None:
    """Let this process make namespaces: where it may not, it enters one of users, once and for good.

    It needs to have one thread alone. Raises OSError.
    """
    if _effective_capabilities() & 1 << _SYS_ADMIN:
        return
    user, group = os.geteuid(), os.getegid()
    call("unshare", _CLONE_NEWUSER)
    # Without this the group could give up memberships that keep it from files.
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{user} {user} 1")
    _write("/proc/self/gid_map", f"{group} {group} 1")


def _effective_capabilities() -> int:
    handle = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = os.read(handle, _STATUS)
    finally:
        os.close(handle)
    return int(status.partition(b"CapEff:")[2].split(None, 1)[0], 16)


def _write(path: str, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


class Init:
    """The first process, and the namespaces that one confined program after another has: of processes, which
    is empty but for it between two of them, and of a network without any device.

    It ends with this process.
    """

    def __init__(self) -> None:
        """Fork the first process. This process needs to have one thread alone. Raises OSError."""
        become_able()
        drop_bounds()  # once for all programs: it takes 41 system calls
        self._control, theirs = socket.socketpair()
        #: Can be read when there is an answer to ``ask_for_others``.
        self.answers = self._control.fileno()
        #: Its number; 0 once it has ended.
        self.pid = 0
        self._proc = self._network = -1
        self._keeper = 0
        self._failed: OSError | None = None
        self._is_made, forever = _thread.allocate_lock(), _thread.allocate_lock()
        self._is_made.acquire()
        forever.acquire()
        try:
            _thread.start_new_thread(self._keep, (theirs, forever))
        except RuntimeError:  # there may be no more of them
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
        self._is_made.acquire()
        theirs.close()
        if self._failed is not None:
            raise self._failed
        if self.receive() != NONE:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        place = f"/proc/self/task/{self._keeper}/ns/pid_for_children"
        self._processes = os.open(place, os.O_RDONLY | os.O_CLOEXEC)

    def _keep(self, theirs: socket.socket, forever: _thread.LockType) -> None:
        """Make the first process, on a thread that stays: its children are in there from then on, and the
        first ends with it.
        """
        try:
            call("unshare", _CLONE_NEWPID | _CLONE_NEWNS)
            self._keeper = _thread.get_native_id()
            self.pid = os.fork()
            if self.pid == 0:
                _be_first(theirs)
        except OSError as error:
            self._failed = error
        self._is_made.release()
        forever.acquire()

    @property
    def is_ready(self) -> bool:
        """Whether a program can be started in there, the only one."""
        return bool(self.pid) and self._proc >= 0

    def enter(self, *, network: bool, most_processes: int | None = None) -> int:
        """Have what this thread starts live in there, where there may be ``most_processes`` at a time, and
        without ``network`` have none. Returns a ``/proc`` of the namespace, mounted nowhere yet.

        Raises OSError.
        """
        if most_processes is not None and os.geteuid() == 0:
            self._limit_processes(most_processes)
        call("setns", self._processes, _CLONE_NEWPID)
        if not network:
            self._leave_network()
        proc, self._proc = self._proc, -1
        return proc

    def _leave_network(self) -> None:
        if self._network >= 0:
            call("setns", self._network, _CLONE_NEWNET)
            return
        call("unshare", _CLONE_NEWNET)
        self._network = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def _limit_processes(self, most: int) -> None:
        """Bound the numbers of processes in there: root is exempt from the limit of resources.

        It is done by the first process, since the kernel sets the bound of the namespace that the caller is
        in, and this process is in that of the whole machine. Raises OSError, also where all namespaces have
        one bound, which is not ours to set.
        """
        major, minor = os.uname().release.split(".")[:2]
        if (int(major), int("".join(filter(str.isdigit, minor)))) < _BOUND_EACH:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        self._control.send(b"%d" % min(most + _RESERVED, _GREATEST_BOUND))
        if failed := int(self._control.recv(_READ) or errno.ESRCH):
            raise OSError(failed, os.strerror(failed))

    def ask_for_others(self) -> None:
        """Ask what else is in there, since the process that its owner made has ended."""
        with contextlib.suppress(OSError):  # it has ended, and all others with it
            self._control.send(_ASK)

    def receive(self) -> bytes:
        """What it says: ``NONE`` where there are no others, with what the next program needs of it. Else
        ``SOME``, and it ends with the last of its children. Nothing once it has ended.
        """
        try:
            said, handles = receive(self._control, _READ, 1)
        except OSError:
            return b""
        self._proc = handles[0] if handles else -1
        return said[-1:]


def _be_first(control: socket.socket) -> None:
    """Be the first process; never returns."""
    try:
        end_with_parent()
        call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)  # a process in here sees nothing by way of it
        signal.set_wakeup_fd(-1)
        forget_children()  # also those whose own parent has ended
        see_processes_alone()
        os.dup2(control.fileno(), 0)
        control.detach()
        system_call(CLOSE_RANGE, 1, _ALL, 0)
        own = socket.socket(fileno=0)
        while _is_alone():
            # Made while nobody else is there, who might keep this process from it.
            proc = new_processes()
            socket.send_fds(own, [NONE], [proc])
            os.close(proc)
            while (asked := own.recv(_READ)) and asked != _ASK:
                own.send(b"%d" % _bound_processes(asked))
            if not asked:
                return
        own.send(SOME)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, 0)  # comes back once there are none; what has another parent ends too
    finally:
        os._exit(0)


def _bound_processes(most: bytes) -> int:
    """Bound the numbers of processes in the namespace that this process is the first of; 0, or the error."""
    if os.getpid() != 1:
        return errno.EPERM  # else it would be the bound of others, or of the whole machine
    try:
        _write("/sys/kernel/pid_max", most.decode())  # of the /proc that it has for its root
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _is_alone() -> bool:
    """Whether no other process is in this one's namespace, whosever child it is: a program may make some that
    are its parent's.
    """
    try:
        os.kill(-1, 0)
    except ProcessLookupError:
        return True
    return False
