"""Confines the thread that is to start a child's program, as its plan says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from actors.runtime.children.confinement.landlock import TRUNCATES, restrict
from actors.runtime.children.confinement.landlock import version as landlock_version
from actors.runtime.children.confinement.mounts import View, enter_view
from actors.runtime.children.confinement.privileges import Limits, drop_bounds, drop_capabilities
from actors.runtime.children.confinement.seccomp import install as install_filter

#: What a program writes to besides its own files: devices, its own terminals, shared memory.
_DEVICES = b"/dev"
_SAFE_DEVICES = (b"/dev/null", b"/dev/zero", b"/dev/full", b"/dev/random", b"/dev/urandom")


class Plan(NamedTuple):
    """A confinement as plain data. Without ``view`` only Landlock's rules restrict its files."""

    has_view: bool
    view: View
    network: bool
    limits: Limits
    seccomp: bytes


def plan_of(received: tuple[object, ...]) -> Plan:
    """The plan in a received frame."""
    plan = Plan(*received)  # type: ignore[arg-type]
    return plan._replace(view=View(*plan.view))


def confine(plan: Plan, proc: int = -1) -> Iterator[str]:
    """Restrict this thread, and everything it starts, to what the plan allows, for good. Resource limits are
    the exception: they belong to a process.

    Yields the name of each step before taking it. A view needs namespaces, and takes over ``proc``, the
    ``/proc`` of the PID namespace. Raises OSError.
    """
    view = plan.view
    if plan.has_view:
        yield "files"
        enter_view(view, proc)
    yield "privileges"
    if not plan.has_view:  # otherwise entering the namespaces has done this
        drop_bounds()
    drop_capabilities()
    yield "landlock"
    if not plan.has_view:
        restrict(view.readable, (*view.writable, view.home, *_SAFE_DEVICES), network=plan.network)
    elif landlock_version() >= TRUNCATES:  # the mounts already restrict it; these rules do so once more
        restrict((b"/",), (*view.writable, view.home, b"/tmp", _DEVICES), network=plan.network)
    yield "seccomp"
    install_filter(plan.seccomp)
