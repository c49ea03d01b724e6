"""What tests of commands share."""

import sys
import uuid
from collections.abc import Iterator

import pytest
from process_kit import marked, wait_until_none

collect_ignore_glob = [] if sys.platform == "linux" else ["test_*"]


@pytest.fixture
def mark() -> Iterator[str]:
    """A mark for the test's processes, of which none is left at its end."""
    name = uuid.uuid4().hex
    yield name
    wait_until_none(lambda: marked(name))
