"""What is shown and kept of a command's output, however it comes and whatever becomes of its file."""

from __future__ import annotations

import errno
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from shell_kit import outputs

from actors.tools.output import write_new
from actors.tools.shell.recording import Recording

CAP = 3000
LINES = b"".join(b"%d\n" % number for number in range(4000))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [1, 700, 5000, 6001, 6500, len(LINES)])
async def test_the_end_is_shown_of_output_that_becomes_too_long_with_the_last_that_comes(
    tmp_path: Path, size: int
) -> None:
    recording = Recording(CAP, tmp_path, "shell")
    for at in range(0, len(LINES), size):
        await recording.feed(LINES[at : at + size])
    shown = await recording.look()
    head, tail = shown[: 2 * CAP // 3], shown[-CAP // 3 :]
    assert (head, tail) == (LINES[: len(head)].decode(), LINES[-len(tail) :].decode())
    assert len(shown) < CAP + 200


async def test_a_file_that_breaks_off_is_called_the_beginning_and_not_the_first_100_mb(
    tmp_path: Path,
) -> None:
    recording = Recording(CAP, tmp_path, "shell")
    with largest_file(10_000):
        await recording.feed(LINES[:8000])
        await recording.feed(LINES[8000:])
        shown = await recording.look()
    (kept,) = outputs(tmp_path)
    assert kept.read_bytes() == LINES[:10_000]
    assert f"; the beginning of the output is in {kept} …]" in shown


async def test_a_file_that_is_deleted_meanwhile_is_not_made_anew_and_called_the_whole(tmp_path: Path) -> None:
    recording = Recording(CAP, tmp_path, "shell")
    await recording.feed(LINES)
    assert "the whole output is in" in await recording.look()
    (kept,) = outputs(tmp_path)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    kept.unlink()
    await recording.feed(LINES)
    assert "bytes cut here …]" in await recording.look()
    assert recording.kept is None
    assert not outputs(tmp_path)


def test_of_a_file_that_cannot_be_written_nothing_is_left(tmp_path: Path) -> None:
    with largest_file(100), pytest.raises(OSError, match="File too large") as caught:
        write_new(tmp_path, "shell", LINES)
    assert caught.value.errno == errno.EFBIG
    assert not outputs(tmp_path)


async def test_output_that_is_nearly_all_nul_is_said_to_be_no_text(tmp_path: Path) -> None:
    recording = Recording(CAP, tmp_path, "shell")
    await recording.feed(b"\0" * 5000 + b"end\n")
    (shown,) = (await recording.look()).splitlines()
    assert shown == f"[5,004 bytes of binary data; the whole output is in {recording.kept}]"
