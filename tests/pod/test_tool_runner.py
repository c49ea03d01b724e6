"""The calls of one batch share nothing that one of them could spoil for the others."""

from __future__ import annotations

import asyncio
import threading

from actors.pod.calls import ToolRunner
from actors.tools.base import Toolbox, ToolContext, tool
from protocol.items import ToolCall
from protocol.manifest import PodManifest


def test_a_call_that_runs_out_of_time_does_not_cancel_the_others_of_its_batch(tmp_path):
    flags: dict[str, bool] = {}
    ran_out = threading.Event()

    @tool(concurrency="read_only", timeout=0.01)
    def slow(ctx: ToolContext) -> None:
        ctx.cancel.wait(10)
        flags["slow"] = ctx.cancel.cancelled
        ran_out.set()

    @tool(concurrency="read_only")
    def beside(ctx: ToolContext) -> None:
        ran_out.wait(10)
        flags["beside"] = ctx.cancel.cancelled

    @tool
    def behind(ctx: ToolContext) -> None:
        flags["behind"] = ctx.cancel.cancelled

    async def ended(*_: object) -> None: ...

    runner = ToolRunner(Toolbox([slow, beside, behind]), PodManifest.of(pwd=str(tmp_path)))
    calls = [ToolCall(name, name) for name in ("slow", "beside", "behind")]
    asyncio.run(
        runner.run("p", None, calls, lambda call: None, ended, lambda *told: None, lambda *late: None)
    )
    assert flags == {"slow": True, "beside": False, "behind": False}
