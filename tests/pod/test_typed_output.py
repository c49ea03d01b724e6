"""Runs whose answer is an instance of a type."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from actors.llm.scripted import ScriptedClient, say
from actors.system import PodSystem
from protocol.errors import OutputInvalid, RunFailed
from protocol.events import RunEnd
from protocol.items import SystemItem
from protocol.manifest import PodManifest


class City(msgspec.Struct):
    name: str
    people: int


async def test_the_answer_comes_as_an_instance_and_the_schema_goes_to_the_model() -> None:
    client = ScriptedClient([say('```json\n{"name": "Oslo", "people": 709037}\n```')])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client)
        result = await pod.run("the capital of Norway", output=City)
        assert result.output == City("Oslo", 709037)
        schema = client.requests[0].output_schema
        assert schema is not None
        assert set(schema["properties"]) == {"name", "people"}


async def test_an_answer_that_does_not_fit_goes_back_to_the_model() -> None:
    client = ScriptedClient([say('{"name": "Oslo"}'), say('{"name": "Oslo", "people": 1}')])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client)
        assert (await pod.run("go", output=City)).output == City("Oslo", 1)
        published = [item.text for item in await pod.history() if isinstance(item, SystemItem)]
        assert len(published) == 1
        assert "`people`" in published[0]
        assert published[0].endswith(json.dumps(client.requests[0].output_schema, separators=(",", ":")))


async def test_an_empty_answer_that_the_model_has_made_good_is_not_said_to_be_one() -> None:
    client = ScriptedClient([say(""), say('{"name": "Oslo", "people": 1}')])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client)
        with pod.subscribe(RunEnd) as ends:
            result = await pod.run("go", output=City)
            assert (result.output, result.limit) == (City("Oslo", 1), None)
            assert (await anext(ends)).error is None  # type: ignore[attr-defined]


async def test_a_model_that_never_fits_ends_the_run_after_a_bounded_number_of_answers() -> None:
    client = ScriptedClient([say("no")] * 3)
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client)
        with pytest.raises(RunFailed) as caught:
            await pod.run("go", output=list[int])
        assert isinstance(caught.value.cause, OutputInvalid)


async def test_a_type_without_a_schema_is_refused_before_anything_runs() -> None:
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=ScriptedClient([]))
        with pytest.raises(TypeError):
            pod.run("go", output=asyncio.Event)
