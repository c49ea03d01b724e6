"""The fixture ``polypod`` for tests of agents, which pytest finds by itself where polypod is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from polypod import PodSystem


@pytest.fixture
def polypod() -> Iterator[PodSystem]:
    """A system of pods for one test, on a thread of its own: ``.get()`` what its pods give, or ``await`` it.

    Sessions are kept in memory. At the end of the test its pods are stopped, and replies of a script that
    nobody has asked for fail it.
    """
    from polypod import PodSystem  # noqa: PLC0415 - paid for by tests that use it

    with PodSystem() as system:
        yield system
