"""What ``kill -9`` leaves of a chain: its tool loop goes on where it was, and no money is forgotten."""

from __future__ import annotations

from pathlib import Path

from routing.chain_child import LARGE, PLAIN, SMALL, Child, append_to
from routing.chain_kit import Verdicts

from polypod import EscalationChain, PodSystem, ScriptedClient, Usage, UserItem, Verdict, say


async def test_a_tool_loop_that_was_killed_goes_on_at_its_tier_and_runs_nothing_twice(tmp_path: Path):
    child = Child(tmp_path, "tool")
    child.kill()
    local, cloud = ScriptedClient([]), ScriptedClient([say("13", input_tokens=50, output_tokens=5)])
    chain = EscalationChain([SMALL, LARGE], local=local, cloud=cloud, verifier=Verdicts())
    async with PodSystem(f"sqlite:{child.store}") as system:
        tools = [append_to(child.file, hang=False)]
        pod = await system.spawn(PLAIN, client=chain, tools=tools, resume=child.session)
        restored = await pod.describe()
        assert restored.usage == Usage(10 + 30 + 40, 1 + 3 + 4)
        assert (await pod.resume()).text == "13"
        assert (await pod.describe()).usage == Usage(130, 13)
    assert child.file.read_text().split() == ["one", "hang"]
    assert local.requests == []
    assert [each.name for each in cloud.requests[0].tools] == ["append"]
    assert cloud.requests[0].items[0] == UserItem.of("go\n\nPrior attempt feedback: count again")
    assert "outcome unknown" in cloud.requests[0].items[-1].text


async def test_what_a_rejected_tier_took_is_kept_though_the_process_is_killed_in_the_next_verifier(
    tmp_path: Path,
):
    child = Child(tmp_path, "verifier")
    child.kill()
    local = ScriptedClient([say("14", input_tokens=5, output_tokens=1)])
    chain = EscalationChain(["a", "b"], local=local, verifier=Verdicts(Verdict(accept=True)))
    async with PodSystem(f"sqlite:{child.store}") as system:
        tools = [append_to(child.file, hang=False)]
        pod = await system.spawn(PLAIN, client=chain, tools=tools, resume=child.session)
        assert (await pod.describe()).usage == Usage(10, 1)
        assert (await pod.resume()).text == "14"
    assert local.requests[0].model == "a"
