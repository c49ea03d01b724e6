"""``Init``: the first process of a PID namespace: when it ends, the kernel ends everything in the
namespace.
"""

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
#: More bytes than the status of a process has.
_STATUS = 16384
_READ = 16
#: Its answers about other processes in its namespace.
SOME, NONE = b"+", b"-"
#: Asks whether there are others; any other request is a number of processes.
_ASK = b"?"
#: From this version of Linux on, each PID namespace has its own bound of pids; then the greatest bound, and
#: the number below which pids are given only once.
_BOUND_EACH, _GREATEST_BOUND, _RESERVED = (6, 14), 1 << 22, 300


@functools.cache
def become_able() -> None:
    """Make this process able to create namespaces, if necessary by entering a user namespace for good.

    The process must have only one thread. Raises OSError.
    """
    if _effective_capabilities() & 1 << _SYS_ADMIN:
        return
    user, group = os.geteuid(), os.getegid()
    call("unshare", _CLONE_NEWUSER)
    # Otherwise the group could drop memberships that deny it access to files.
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
    """The first process, and the namespaces that confined programs use one after the other: of processes,
    empty between two programs but for the first process, and of a network without devices.

    It ends with this process.
    """

    def __init__(self) -> None:
        """Fork the first process. This process must have only one thread. Raises OSError."""
        become_able()
        drop_bounds()  # once for all programs: it takes 41 system calls
        self._control, theirs = socket.socketpair()
        #: Readable when there is an answer to ``ask_for_others``.
        self.answers = self._control.fileno()
        #: Its pid; 0 once it has ended.
        self.pid = 0
        self._proc = self._network = -1
        self._keeper = 0
        self._failed: OSError | None = None
        self._is_made, forever = _thread.allocate_lock(), _thread.allocate_lock()
        self._is_made.acquire()
        forever.acquire()
        try:
            _thread.start_new_thread(self._keep, (theirs, forever))
        except RuntimeError:  # there may be too many threads
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
        """Make the first process on a thread that stays: the thread's children are in the namespace from then
        on, and the first process ends with the thread.
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
        """Whether the namespace is empty, so that a program can be started in it."""
        return bool(self.pid) and self._proc >= 0

    def enter(self, *, network: bool, most_processes: int | None = None) -> int:
        """Have what this thread starts live in the namespace, with at most ``most_processes`` at a time, and
        with no network unless ``network``. Returns a ``/proc`` of the namespace that is not mounted yet.

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
        """Bound the pids in the namespace: root is exempt from the resource limit.

        The first process does it, because the kernel sets the bound of the caller's namespace, and this
        process is in that of the whole machine. Raises OSError, also if all namespaces share one bound, which
        must not be changed.
        """
        major, minor = os.uname().release.split(".")[:2]
        if (int(major), int("".join(filter(str.isdigit, minor)))) < _BOUND_EACH:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        self._control.send(b"%d" % min(most + _RESERVED, _GREATEST_BOUND))
        if failed := int(self._control.recv(_READ) or errno.ESRCH):
            raise OSError(failed, os.strerror(failed))

    def ask_for_others(self) -> None:
        """Ask whether other processes are left, now that the warden's own child has ended."""
        with contextlib.suppress(OSError):  # it has ended, and all others with it
            self._control.send(_ASK)

    def receive(self) -> bytes:
        """Receive its answer: ``NONE`` if there are no others, with what the next program needs of it;
        ``SOME`` if there are, and then it ends with the last of its children; nothing if it has ended.
        """
        try:
            said, handles = receive(self._control, _READ, 1)
        except OSError:
            return b""
        self._proc = handles[0] if handles else -1
        return said[-1:]


def _be_first(control: socket.socket) -> None:
    """Be the first process. Never returns."""
    try:
        end_with_parent()
        call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)  # so that no process in here can inspect it
        signal.set_wakeup_fd(-1)
        forget_children()  # and orphans that it adopts
        see_processes_alone()
        os.dup2(control.fileno(), 0)
        control.detach()
        system_call(CLOSE_RANGE, 1, _ALL, 0)
        own = socket.socket(fileno=0)
        while _is_alone():
            # Made in here, since it shows the maker's namespace; and while nobody is there to hinder that.
            proc = new_processes()
            socket.send_fds(own, [NONE], [proc])
            os.close(proc)
            while (asked := own.recv(_READ)) and asked != _ASK:
                own.send(b"%d" % _bound_processes(asked))
            if not asked:
                return
        own.send(SOME)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, 0)  # returns once it has no children; processes of another parent end with it
    finally:
        os._exit(0)


def _bound_processes(most: bytes) -> int:
    """Bound the pids in the namespace of which this is the first process. Returns 0, or the error number."""
    if os.getpid() != 1:
        return errno.EPERM  # otherwise it would bound others, or the whole machine
    try:
        _write("/sys/kernel/pid_max", most.decode())  # in the /proc that is its root
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _is_alone() -> bool:
    """Whether no other process is in this one's namespace, whoever its parent is: with CLONE_PARENT a program
    makes children of its own parent.
    """
    try:
        os.kill(-1, 0)
    except ProcessLookupError:
        return True
    return False
