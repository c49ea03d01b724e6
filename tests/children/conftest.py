"""What tests of child processes share."""

import os
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from confined_kit import Place, Runner
from process_kit import marked, wait_until_none

from actors.runtime.children.launcher import Launcher
from protocol.errors import ChildNotConfined

collect_ignore = (
    []
    if sys.platform == "linux"
    else [
        "test_child_end.py",
        "test_child_chaos.py",
        "test_confined_files.py",
        "test_confined_processes.py",
    ]
)


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


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(Path(os.path.realpath(tmp_path)))


@pytest.fixture(scope="module", params=["as we are", "without privileges"])
def rung(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """One for all tests of a module, as one is for all programs of a system."""
    runner = Runner(Place(Path(os.path.realpath(tmp_path_factory.mktemp("rung")))), request.param)
    try:
        try:
            runner.run([])
        except ChildNotConfined as error:
            pytest.skip(f"{request.param}: {error}")
        yield runner
    finally:
        runner.close()


@pytest.fixture
def confined(rung: Runner, place: Place) -> Runner:
    """Starts programs that are confined by namespaces, as whom this machine lets make them."""
    rung.place = place
    return rung
