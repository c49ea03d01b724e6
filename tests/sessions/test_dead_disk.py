"""A disk that dies under a store: errors say which file and what to do, no pod hangs, and what is left ends."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actors.llm.scripted import ScriptedClient, call, say
from actors.sessions.lock import WriterLock
from actors.system import PodSystem
from actors.tools.base import tool
from protocol.errors import PolypodError, RunFailed, StoreError
from protocol.manifest import PodManifest

#: ``EXT4_IOC_SHUTDOWN`` of Linux (fs/ext4/ext4.h): whatever is asked of the file system fails from then on.
_SHUT_DOWN = 0x8004587D


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A folder on a disk of its own, and what has that die."""
    image, folder = tmp_path / "image", tmp_path / "disk"
    folder.mkdir()
    image.write_bytes(b"")
    os.truncate(image, 16 << 20)
    for command in (["mkfs.ext4", "-q", image], ["mount", "-o", "loop", image, folder]):
        try:
            done = subprocess.run(command, capture_output=True, check=False)
        except OSError:
            pytest.skip(f"there is no {command[0]}")
        if done.returncode:
            pytest.skip(f"{command[0]}: {done.stderr.decode()}")

    def die() -> None:
        descriptor = os.open(folder, os.O_RDONLY)
        fcntl.ioctl(descriptor, _SHUT_DOWN, struct.pack("I", 2))
        os.close(descriptor)

    try:
        yield folder, die
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize(
    "store", ["sqlite:{}/pods.db", "sqlite:{}/pods.db?durability=power", "jsonl:{}/sessions"]
)
async def test_pods_outlive_the_disk_of_their_store(
    store: str, disk: tuple[Path, Callable[[], None]]
) -> None:
    folder, die = disk

    @tool
    async def wait() -> str:
        """Wait until the disk is dead."""
        waiting.set()
        await dead.wait()
        return "done"

    waiting, dead = asyncio.Event(), asyncio.Event()
    client = ScriptedClient(["fine", call("wait", {}), say("never")], leftovers=True)
    async with PodSystem(store=store.format(folder), memory=folder / "memory", store_grace=1.0) as system:
        pod = await system.spawn(PodManifest.of(), client=client, tools=[wait])
        assert (await pod.run("hello")).text == "fine"
        run = pod.run("go")
        await waiting.wait()
        die()
        dead.set()
        with pytest.raises(RunFailed, match="check the disk") as failed:
            await asyncio.wait_for(run, 20)
        assert isinstance(failed.value.__cause__, StoreError)
        for ask in (lambda: pod.run("again"), pod.fork, pod.compact, lambda: pod.notify("words")):
            with pytest.raises(PolypodError, match="check the disk"):
                await asyncio.wait_for(ask(), 20)
        assert (await pod.describe()).state == "idle"


def test_a_writer_lets_go_though_its_lock_cannot_be_removed(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "writers", tmp_path / "elsewhere"
    lock = WriterLock(folder)
    name = lock.id
    folder.rename(elsewhere)
    folder.write_text("")  # so that what was in the folder cannot be asked for
    lock.release()
    folder.unlink()
    elsewhere.rename(folder)
    assert WriterLock(folder).alive(name) is None
