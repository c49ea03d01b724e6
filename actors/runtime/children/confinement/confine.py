"""Confines the thread that is to start a child's program, as its plan says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from actors.runtime.children.confinement.landlock import TRUNCATES, restrict
from actors.runtime.children.confinement.landlock import version as landlock_version
from actors.runtime.children.confinement.mounts import View, enter_view
from actors.runtime.children.confinement.privileges import Limits, drop_bounds, drop_capabilities
from actors.runtime.children.confinement.seccomp import install as install_filter

#: What a program writes besides its own files: devices, terminals of its own, shared memory.
_DEVICES = b"/dev"
_SAFE_DEVICES = (b"/dev/null", b"/dev/zero", b"/dev/full", b"/dev/random", b"/dev/urandom")


class Plan(NamedTuple):
    """A confinement in plain data. Without ``view`` the kernel's rules of files are all that holds it."""

    has_view: bool
    view: View
    network: bool
    limits: Limits
    seccomp: bytes


def plan_of(received: tuple[object, ...]) -> Plan:
    """The plan that a frame carried."""
    plan = Plan(*received)  # type: ignore[arg-type]
    return plan._replace(view=View(*plan.view))


def confine(plan: Plan, proc: int = -1) -> Iterator[str]:
    """Restrict this thread, and all it starts, to what the plan allows, for good; but for its limits, which
    are those of a process.

    It is done step by step; each is named before it is taken. A view needs namespaces, and the ``proc`` of
    that of processes, which is taken over. Raises OSError.
    """
    view = plan.view
    if plan.has_view:
        yield "files"
        enter_view(view, proc)
    yield "privileges"
    if not plan.has_view:  # else it was done in the namespaces that it has
        drop_bounds()
    drop_capabilities()
    yield "landlock"
    if not plan.has_view:
        restrict(view.readable, (*view.writable, view.home, *_SAFE_DEVICES), network=plan.network)
    elif landlock_version() >= TRUNCATES:  # mounts hold already; these rules hold once more
        restrict((b"/",), (*view.writable, view.home, b"/tmp", _DEVICES), network=plan.network)
    yield "seccomp"
    install_filter(plan.seccomp)
