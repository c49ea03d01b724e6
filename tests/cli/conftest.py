"""What tests of the command share."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_kit import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A person's folder."""
    return Home(tmp_path)


@pytest.fixture
def terminals_count() -> Iterator[None]:
    """Who is started here learns of a terminal that is closed, though the tests run under ``nohup``."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
