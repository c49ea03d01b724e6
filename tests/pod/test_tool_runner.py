"""The calls of one batch share nothing that one of them could spoil for the others."""

from __future__ import annotations

import threading

from pod_stage import Stage, on_stage

from actors.llm.scripted import call, say
from actors.tools.base import ToolContext, tool


def test_a_call_that_runs_out_of_time_does_not_cancel_the_others_of_its_batch():
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

    async def play(stage: Stage) -> None:
        stage.answer()
        stage.answer()
        await stage.pod.run("go")

    on_stage(
        [call("slow") + call("beside") + call("behind"), say("done")], play, tools=[slow, beside, behind]
    )
    assert flags == {"slow": True, "beside": False, "behind": False}
