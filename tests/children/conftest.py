"""What tests of child processes share."""

import sys
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
from process_kit import marked, wait_until_none

from actors.runtime.children.launcher import Launcher

collect_ignore = [] if sys.platform == "linux" else ["test_child_end.py", "test_child_chaos.py"]


@pytest.fixture
def mark() -> Iterator[str]:
    """A mark for the test's processes, of which none is left at its end."""
    name = uuid.uuid4().hex
    yield name
    wait_until_none(lambda: marked(name))


@pytest.fixture
async def launcher(mark: str) -> AsyncIterator[Launcher]:
    launcher = Launcher()
    yield launcher
    await launcher.aclose()
