"""Pods on a real llama-server: tools, many at once, and a server that dies in the middle."""

import asyncio

import pytest
from real_kit import RealServer, garbled, in_all_formats, manifest, needs_command, needs_server

from actors.pod.handle import Pod
from actors.system import PodSystem
from protocol.errors import RunFailed
from protocol.events import Event, RunEnd, StreamRestart, TextDelta, ThinkingDelta
from protocol.items import AssistantItem, ToolResult

pytestmark = pytest.mark.timeout(180)

DELTAS = (TextDelta, ThinkingDelta)


def read_file(path: str) -> str:
    """Read a file."""
    return f"{path} is empty"


@needs_server
@in_all_formats
def test_a_pod_goes_through_tools_and_answers_every_call(scheme):
    async def asked_of(pod: Pod) -> list[str]:
        history = await pod.history()
        asked = [call.id for item in history if isinstance(item, AssistantItem) for call in item.calls]
        assert asked == [item.call_id for item in history if isinstance(item, ToolResult)]
        return asked

    async def main() -> int:
        calls = 0
        async with PodSystem() as system:
            for number in range(8):
                settings = {"max_steps": 3, "max_tokens": 120, "temperature": 0.8}
                pod = await system.spawn(manifest(scheme, **settings), tools=[read_file])
                try:
                    result = await pod.run(f"read file {number}")
                except RunFailed as error:
                    if not garbled(error):
                        raise
                else:
                    assert result.outcome in {"finished", "limit_reached"}
                    assert result.usage.input_tokens > 0
                calls += len(await asked_of(pod))
        return calls

    if not asyncio.run(main()):
        pytest.skip("this model never called its tool")


@needs_server
@in_all_formats
async def test_what_a_request_of_a_pod_begins_with_comes_from_the_servers_cache(scheme):
    async with PodSystem() as system:
        pod = await system.spawn(manifest(scheme, max_tokens=8, temperature=0.0))
        first = (await pod.run("list the files " * 20)).usage
        second = (await pod.run("and then?")).usage
        assert second.input_tokens > second.cache_read_tokens >= first.input_tokens - 8


@needs_server
@in_all_formats
async def test_sixty_four_pods_at_once_learn_what_each_ones_model_said(scheme):
    async with PodSystem() as system:
        pods = [await system.spawn(manifest(scheme, max_tokens=8, temperature=0.8)) for _ in range(64)]

        async def reported(number: int) -> tuple[str, str]:
            events = [event async for event in pods[number].stream(f"list {number} files")]
            assert isinstance(events[-1], RunEnd)
            assert events[-1].outcome in {"finished", "limit_reached"}
            deltas = "".join(event.text for event in events if isinstance(event, TextDelta))
            return deltas, (await pods[number].history())[-1].text

        for deltas, text in await asyncio.gather(*(reported(number) for number in range(64))):
            assert deltas == text


@needs_server
@in_all_formats
async def test_a_run_that_max_tokens_cuts_ends_at_its_limit(scheme):
    async with PodSystem() as system:
        pod = await system.spawn(manifest(scheme, max_tokens=4, temperature=0.0))
        result = await pod.run("list the files")
        assert (result.outcome, result.usage.output_tokens) == ("limit_reached", 4)


@needs_server
@in_all_formats
async def test_a_run_whose_prompt_does_not_fit_fails_with_an_overflow(scheme):
    async with PodSystem() as system:
        pod = await system.spawn(manifest(scheme))
        with pytest.raises(RunFailed) as caught:
            await pod.run("the quick brown fox " * 40_000)
        assert caught.value.failure.details["kind"] == "context_overflow"
        assert (await pod.describe()).state == "idle"


def said(events: list[Event], attempt: int) -> str:
    """What was reported of an attempt's text and reasoning."""
    return "".join(each.text for each in events if isinstance(each, DELTAS) and each.attempt == attempt)


@needs_command
@in_all_formats
async def test_a_server_that_is_killed_in_the_middle_fails_the_run_with_a_clear_error(scheme):
    async with RealServer() as server, PodSystem() as system:
        pod = await system.spawn(manifest(scheme, server.base_url, max_tokens=800, temperature=0.0))
        events = []
        async for event in pod.stream("list the files"):
            events.append(event)
            if isinstance(event, DELTAS):
                server.kill()
        end = events[-1]
        assert isinstance(end, RunEnd)
        assert end.outcome == "failed"
        assert f"127.0.0.1:{server.port}" in end.error.message
        assert end.error.details["kind"] == "connection"
        assert any(isinstance(event, StreamRestart) for event in events)
        asked, *shown = await pod.history()
        assert asked.text == "list the files"
        # What was shown of an answer that broke off is kept, marked as cut; a tiny model may show nothing.
        assert [item.cut for item in shown] == [True] * bool(said(events, attempt=1))


@needs_command
@in_all_formats
async def test_a_server_that_is_killed_and_started_again_in_the_middle_doubles_nothing(scheme):
    async with RealServer() as server, PodSystem() as system:
        pod = await system.spawn(manifest(scheme, server.base_url, max_tokens=800, temperature=0.0))
        events = []
        async for event in pod.stream("list the files"):
            events.append(event)
            if isinstance(event, DELTAS) and event.attempt == 1:
                server.kill()
                server.start()
        end = events[-1]
        assert isinstance(end, RunEnd)
        assert said(events, attempt=1)
        if end.outcome == "failed":  # it was not back in time
            assert f"127.0.0.1:{server.port}" in end.error.message
        else:
            answer = (await pod.history())[-1]
            last = max(event.attempt for event in events if isinstance(event, DELTAS))
            assert last > 1
            assert "".join(part.text for part in answer.content) == said(events, last)
        await server.ready()
        assert (await pod.run("and then?")).outcome in {"finished", "limit_reached"}  # the pod lives on
