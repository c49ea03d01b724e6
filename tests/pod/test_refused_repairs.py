"""A store that refuses what closes the calls of an earlier life: these stay calls that may have run."""

from __future__ import annotations

from typing import Any

import pytest
from every_commit import Refusing

from actors.llm.scripted import ScriptedClient, call, say
from actors.system import PodSystem
from actors.tools.base import tool
from actors.tools.toolbox import INTERRUPTED
from protocol.errors import RunFailed
from protocol.items import ToolResult
from protocol.manifest import PodManifest

PLAIN = PodManifest.of(name="p")
ASKS = PodManifest.of(name="p", approval=[{"tool": "pay", "policy": "ask"}], approvals={"headless": "wait"})


@pytest.mark.parametrize("manifest", [PLAIN, ASKS], ids=["plain", "with approvals"])
@pytest.mark.parametrize("how", ["resume", "run"])
async def test_a_call_that_ran_in_an_earlier_life_is_never_said_not_to_have_run(
    how: str, manifest: PodManifest
) -> None:
    store = Refusing(lambda _: False)

    @tool
    async def weigh() -> str:
        store.refuses = lambda _: True  # from here on nothing of this life is recorded
        return "3 kg"

    async with PodSystem(store) as system:

        async def spawn(*replies: Any, **options: Any) -> Any:
            return await system.spawn(manifest, client=ScriptedClient(replies), tools=[weigh], **options)

        pod = await spawn(call("weigh", {}))
        with pytest.raises(RunFailed):
            await pod.run("go")
        await pod.stop()
        (info,) = store.sessions(pod="p", limit=1)
        store.refuses = lambda _: False
        pod = await spawn(say("done"), resume=info.session_id)
        refused = store.commits + 1
        store.refuses = lambda number: number == refused
        with pytest.raises(RunFailed):
            await (pod.resume() if how == "resume" else pod.run("more"))
        assert (await pod.run("and now")).text == "done"
        results = [item.text for item in await pod.history() if isinstance(item, ToolResult)]
        assert results == [INTERRUPTED]
