"""Output beyond the cap is cut so that the model knows, and kept whole so that nothing is lost."""

from __future__ import annotations

import asyncio
import stat
import threading
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from actors.tools.base import ToolContext
from actors.tools.output import capped, parts_from
from actors.tools.thread_pool import ToolThreads
from actors.tools.toolbox import Toolbox
from protocol.items import ImagePart, TextPart, ToolCall
from protocol.scope import Scope


def test_a_result_cut_by_the_cap_says_so_and_is_kept_whole_for_the_owner_alone(tmp_path):
    text = "".join(f"line {n}\n" for n in range(1000))
    for is_async in (True, False):

        def plain() -> str:
            return text

        async def later() -> str:
            return text

        toolbox = Toolbox([later if is_async else plain], output_cap=300, keep_in=tmp_path / "kept")
        (spec,) = toolbox.specs
        ctx = ToolContext(pwd=Path("/"), scope=Scope())
        result = asyncio.run(toolbox.run(ToolCall("c", spec.name), ctx))
        kept = Path(result.kept)
        assert not result.is_error
        assert kept.read_text() == text
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
        assert result.text.startswith("line 0\n")
        assert result.text.endswith("line 999\n")
        assert f"[… 8,590 of 8,890 bytes cut here; the whole output is in {kept} …]" in result.text


async def test_a_long_result_is_cut_though_tools_hold_all_threads_of_tools(tmp_path):
    async def long() -> str:
        return "x" * 1000

    threads, held = ToolThreads(1), threading.Lock()
    with held:
        holding = asyncio.create_task(threads.call(held.acquire))
        await asyncio.sleep(0)
        toolbox = Toolbox([long], output_cap=300, keep_in=tmp_path, threads=threads)
        async with asyncio.timeout(30):
            result = await toolbox.run(ToolCall("c", "long"), ToolContext(pwd=tmp_path, scope=Scope()))
        assert Path(result.kept).read_text() == "x" * 1000
    await holding


def test_without_a_directory_it_is_cut_with_the_marker_alone():
    output = capped((TextPart("x" * 100),), 30, directory=None, stem="t")
    assert output.kept is None
    assert "[… 70 of 100 bytes cut here …]" in output.parts[0].text


def test_a_directory_that_cannot_be_written_costs_only_the_file(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    output = capped((TextPart("x" * 100),), 30, directory=blocked / "below", stem="t")
    assert output.kept is None
    assert "70 of 100 bytes cut here …" in output.parts[0].text


def test_pictures_do_not_count_and_are_not_cut():
    parts = (TextPart("a" * 20), ImagePart(data="b" * 100), TextPart("c" * 20))
    output = capped(parts, 25, directory=None, stem="t")
    assert output.parts[:2] == parts[:2]
    assert "15 of 20 bytes" in output.parts[2].text


@given(st.lists(st.text(), min_size=1, max_size=4), st.integers(0, 60))
def test_what_is_shown_never_exceeds_the_cap_and_is_never_torn(texts, cap):
    parts = parts_from([TextPart(text) for text in texts])
    output = capped(parts, cap, directory=None, stem="t")
    shown = 0
    for before, after in zip(parts, output.parts, strict=True):
        if before == after:
            shown += len(after.text.encode())
            continue
        head, _, rest = after.text.partition("\n[… ")
        tail = rest.partition(" …]\n")[2]
        assert before.text.startswith(head)
        assert before.text.endswith(tail)
        shown += len(head.encode()) + len(tail.encode())
    assert shown <= cap
