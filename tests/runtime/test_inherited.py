"""What processes are given means there what it means here, whatever a program has set."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.runtime.children.inherited import search_path, socket_pair
from actors.system import PodSystem
from protocol.errors import ChildNotStarted
from protocol.manifest import PodManifest


@pytest.fixture
def default_timeout() -> Iterator[None]:
    socket.setdefaulttimeout(5.0)
    yield
    socket.setdefaulttimeout(None)


@pytest.mark.usefixtures("default_timeout")
def test_sockets_for_a_process_wait_there_though_the_program_has_a_default_timeout() -> None:
    for each in socket_pair():
        with each:
            assert each.gettimeout() is None
            assert os.get_blocking(each.fileno())


@pytest.mark.usefixtures("default_timeout")
async def test_a_pod_is_a_process_in_a_program_with_a_default_timeout_and_a_relative_search_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relative = [os.path.relpath(each or ".") for each in sys.path]
    monkeypatch.setattr(sys, "path", [*relative, Path("src")])
    async with PodSystem(f"sqlite:{tmp_path}/pods.db") as system:
        pod = await system.spawn(PodManifest.of(name="p", model="offline"), process=True)
        assert (await pod.run("hello")).outcome == "finished"


def test_modules_are_looked_for_by_whole_paths_and_not_below_a_folder_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.setattr(sys, "path", ["", "src", "/whole", Path("no text")])
    assert search_path() == [str(gone), str(gone / "src"), "/whole"]
    gone.rmdir()
    assert search_path() == ["/whole"]


async def test_a_process_whose_working_directory_is_gone_is_not_started_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = PodManifest.of(name="p", model="offline")
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    async with PodSystem(f"sqlite:{tmp_path}/pods.db") as system:
        with pytest.raises(ChildNotStarted, match="the working directory no longer exists"):
            await system.spawn(manifest, process=True)
