"""The local model of ``polypod.toml`` is a real llama-server: as a runner, and as a classifier."""

from pathlib import Path

import pytest
from real_kit import BASE_URL, needs_server

from actors.pod.client_factory import local_client
from actors.swarm.runners.local import LocalRunner
from polypod import (
    AssistantMessage,
    ClassificationRefused,
    Classifier,
    LocalModelSection,
    RunEnd,
    TextDelta,
)
from tests.swarm.runner_kit import KitHost, Reader, launch, one

pytestmark = [needs_server, pytest.mark.timeout(180)]
LOCAL = LocalModelSection(BASE_URL, "tiny", timeout_seconds=60, default_temperature=0.0)


async def test_a_task_is_done_by_the_local_model(tmp_path: Path):
    async with KitHost() as host:
        seen = await Reader(LocalRunner(LOCAL).start(launch(tmp_path, "list the files"), host)).all()
    end = one(seen, RunEnd)
    assert end.outcome in {"finished", "limit_reached"}, end.error
    pieces = "".join(each.text for each in seen if isinstance(each, TextDelta))
    assert pieces == one(seen, AssistantMessage).item.text
    assert end.cost == 0.0
    assert (end.usage.input_tokens or 0) > 0
    assert (end.usage.output_tokens or 0) > 0


async def test_a_model_that_is_held_to_an_object_and_names_no_agent_is_refused():
    async with local_client(LOCAL) as client:
        with pytest.raises(ClassificationRefused, match=r"agent_type: '\s*\{"):
            await Classifier(client, timeout=60).classify("fix", "Fix the tests")
