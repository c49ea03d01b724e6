"""Claim: the cost of finding names and lines in a tree of 100,000 files by a pod's search tools."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Self

import msgspec

from actors.pod.handle import Pod
from actors.system import PodSystem
from actors.tools.filesystem.search import find_files, grep
from bench.claim import Claim, at_most
from bench.models import Caller
from bench.results import Reading
from protocol.items import ToolResult
from protocol.manifest import PodManifest

CLAIM = Claim("search", "search tools: names and lines found in a tree of 100,000 files")

#: Files in a folder, and folders in the one above.
_FILES, _FOLDERS = 100, 10
#: One file in so many has a name, and a line, that is searched for.
_RARE = 2_000
_NAME, _LINE = "*_needle.py", r"def needle_\d+\("
_LINES = "".join(f"    value_{number} = compute(value_{number - 1}, {number})\n" for number in range(1, 16))


@contextmanager
def _tree(count: int) -> Iterator[Path]:
    """Create so many files of some 600 bytes, a hundred in each folder, and rules for what git ignores."""
    with tempfile.TemporaryDirectory(prefix="polypod-bench-") as folder:
        root = Path(folder)
        (root / ".gitignore").write_text("*.pyc\nbuild/\ndist/\n/local.toml\n", encoding="utf-8")
        for first in range(0, count, _FILES):
            number = first // _FILES
            inside = root / f"package_{number // _FOLDERS}" / f"part_{number % _FOLDERS}"
            inside.mkdir(parents=True)
            for each in range(first, min(first + _FILES, count)):
                rare = each % _RARE == 0
                name = f"module_{each}_needle.py" if rare else f"module_{each}.py"
                with open(inside / name, "w", encoding="utf-8") as file:  # noqa: PTH123 - takes half the time
                    file.write(f"def {'needle_' if rare else 'other_'}{each}():\n{_LINES}")
        yield root


class _Watch:
    """Measures the processor time of this process and of those it has started that have ended, in a
    ``with``.
    """

    def __enter__(self) -> Self:
        self._wall, self._cpu = time.perf_counter(), _cpu()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self._wall, _cpu() - self._cpu

    def reading(self, metric: str) -> Reading:
        """Processor time, with the time on the wall beside it."""
        return Reading(metric, "s", self.cpu, "cpu", self.wall)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(each.ru_utime + each.ru_stime for each in used)


def _forget_peak() -> None:
    """Reset the system's count of peak memory, if possible: a process inherits its parent's."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _most_memory() -> int:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _measured(count: int, names: Callable[[Path], int], lines: Callable[[Path], int]) -> list[Reading]:
    wanted = len(range(0, count, _RARE))
    with _tree(count) as root:
        _forget_peak()
        before = _most_memory()
        with _Watch() as naming:
            assert names(root) == wanted
        with _Watch() as reading:
            assert lines(root) == wanted
    return [
        naming.reading("time to find names"),
        reading.reading("time to find lines"),
        Reading("memory at its most, beyond the start", "B", max(0, _most_memory() - before)),
    ]


_SIZE: dict[str, Any] = {"full": 100_000, "quick": 20_000, "tiny": 30, "rounds": 1, "warm_up": 30}


@CLAIM.case("100,000 files", **_SIZE, targets={"memory at its most, beyond the start": at_most(64 << 20)})
def search(count: int) -> list[Reading]:
    """A pod whose model calls ``find_files`` and ``grep`` once each."""
    return _measured(
        count,
        lambda root: _found(root, find_files, {"pattern": _NAME}),
        lambda root: _found(root, grep, {"pattern": _LINE}),
    )


def _found(root: Path, tool: Any, arguments: dict[str, str]) -> int:
    """How many lines of a call's result name what is searched for."""

    async def play() -> list[Any]:
        scope = {"allow": [{"target": str(root), "permission": "read"}]}
        wanted = msgspec.convert({"pod": {"name": "bench", "pwd": str(root)}, "scope": scope}, PodManifest)
        async with PodSystem() as system:
            client = Caller(tool.name, msgspec.json.encode(arguments).decode())
            pod: Pod = await system.spawn(wanted, client=client, tools=[tool])
            await pod.run("Where is it?")
            return await pod.history()

    [result] = [item for item in asyncio.run(play()) if isinstance(item, ToolResult)]
    return sum("needle" in line for line in result.text.splitlines())


@CLAIM.case("100,000 files", by="os.walk, re", kind="floor", **_SIZE)
def by_hand(count: int) -> list[Reading]:
    """A search without scope, ignored files, or bounds on what is read or matched."""
    return _measured(count, lambda root: sum(fnmatch(each.name, _NAME) for each in _files(root)), _lines)


def _files(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        for name in names:
            yield Path(folder, name)


def _lines(root: Path) -> int:
    found = re.compile(_LINE.encode()).search
    return sum(found(each.read_bytes()) is not None for each in _files(root))


@CLAIM.case("100,000 files", by="find and grep", kind="floor", **_SIZE)
def by_commands(count: int) -> list[Reading]:
    """The system's own programs."""
    return _measured(
        count,
        lambda root: _printed("find", str(root), "-name", _NAME),
        lambda root: _printed("grep", "-rnE", _LINE.replace(r"\d", "[0-9]"), str(root)),
    )


def _printed(name: str, *arguments: str) -> int:
    command = shutil.which(name)
    if command is None:
        raise FileNotFoundError(f"there is no program {name}")
    return len(subprocess.run([command, *arguments], check=True, capture_output=True).stdout.splitlines())
