"""Types of pydantic in parameters, results and typed answers: its schema, its validation, its dump."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, TypedDict

import msgspec
import pytest

from actors.llm.scripted import ScriptedClient, call, say
from actors.system import PodSystem
from actors.tools.base import Tool, ToolContext, tool
from actors.tools.toolbox import Toolbox
from protocol.items import ToolCall, ToolResult
from protocol.manifest import PodManifest
from protocol.scope import Scope

jsonschema: Any = pytest.importorskip("jsonschema")  # both of the extra "dev"
pydantic: Any = pytest.importorskip("pydantic")
BaseModel: Any = pydantic.BaseModel
Field: Any = pydantic.Field


class Street(BaseModel):
    """A street."""

    name: str
    number: int = Field(gt=0, description="of the house")


class Town(BaseModel):
    name: str
    streets: list[Street] = Field(default_factory=list)
    within: Town | None = None

    @pydantic.field_validator("name")
    @classmethod
    def has_no_digits(cls, name: str) -> str:
        if any(each.isdigit() for each in name):
            raise ValueError("a town has no digits in its name")
        return name


@pydantic.dataclasses.dataclass
class Walk:
    km: Annotated[float, Field(le=50)]


@dataclasses.dataclass
class Plain:
    street: Street


class Known(msgspec.Struct):
    street: Street
    other: Street | None = None


class Table(TypedDict):
    street: Street


STREET = {"name": "Main", "number": 1}


def result_of(function: Any, arguments: dict[str, Any] | None = None) -> ToolResult:
    toolbox = Toolbox([function])
    (spec,) = toolbox.specs
    ctx = ToolContext(pwd=Path("/"), scope=Scope())
    return asyncio.run(toolbox.run(ToolCall("c", spec.name, arguments or {}), ctx))


def taking(kind: Any) -> Tool:
    def take(x: Any) -> str:
        return repr(x)

    take.__annotations__["x"] = kind
    return tool(take)


@pytest.mark.parametrize(
    ("kind", "good", "instance"),
    [
        (Street, STREET, Street(**STREET)),
        (Street | None, None, None),
        (list[Street], [STREET], [Street(**STREET)]),
        (dict[str, Street], {"a": STREET}, {"a": Street(**STREET)}),
        (Street | str, STREET, Street(**STREET)),
        (Town, {"name": "Oslo", "within": {"name": "Norge"}}, Town(name="Oslo", within=Town(name="Norge"))),
        (Walk, {"km": 3}, Walk(3)),
        (Plain, {"street": STREET}, Plain(Street(**STREET))),
        (Known, {"street": STREET}, Known(Street(**STREET))),
        (Table, {"street": STREET}, {"street": Street(**STREET)}),
        (Annotated[int, Field(ge=3)], 3, 3),
    ],
)
def test_a_parameter_of_pydantics_arrives_as_an_instance(kind: Any, good: Any, instance: Any) -> None:
    made = taking(kind)
    jsonschema.validate({"x": good}, made.input_schema)
    assert made.arguments.convert({"x": good}) == {"x": instance}
    json.dumps(made.input_schema, allow_nan=False)


@pytest.mark.parametrize(
    ("kind", "bad", "words"),
    [
        (Street, {"name": "Main", "number": 0}, "x.number: Input should be greater than 0, got 0"),
        (Street, {"name": "Main"}, "x.number: Field required"),
        (list[Street], [STREET, 7], "x[1]: Input should be"),
        (Town, {"name": "N0"}, "x.name: Value error, a town has no digits in its name"),
        (Walk, {"km": 51}, "x.km: Input should be less than or equal to 50"),
        (Known, {"street": {"name": "a", "number": 0}}, "x.street: number: Input should be greater than 0"),
        (Annotated[int, Field(ge=3)], 2, "x: Input should be greater than or equal to 3"),
    ],
)
def test_what_does_not_validate_is_reported_in_words(kind: Any, bad: Any, words: str) -> None:
    result = result_of(taking(kind), {"x": bad})
    assert result.is_error
    assert f"invalid arguments for take: {words}" in result.text
    assert "https://" not in result.text


def test_descriptions_and_bounds_of_fields_reach_the_schema() -> None:
    @tool
    def go(street: Street, km: int = Field(3, ge=1, description="how far"), why: str = "") -> str:
        """Go.

        :param street: where to
        """
        return f"{street.name} {km}{why}"

    properties = go.input_schema["properties"]
    assert properties["street"]["description"] == "where to"
    assert properties["street"]["properties"]["number"]["description"] == "of the house"
    assert properties["km"] == {"type": "integer", "minimum": 1, "description": "how far", "default": 3}
    assert go.input_schema["required"] == ["street"]
    assert result_of(go, {"street": STREET}).text == "Main 3", "what Field says is the default is the default"
    assert result_of(go, {"street": STREET, "km": 0}).is_error


class Dumped(BaseModel):
    when: str
    secret: pydantic.SecretStr

    @pydantic.field_serializer("when")
    def shout(self, when: str) -> str:
        return when.upper()


@pydantic.dataclasses.dataclass
class Shouted:
    when: str

    @pydantic.field_serializer("when")
    def shout(self, when: str) -> str:
        return when.upper()


@pytest.mark.parametrize("around", [lambda x: x, lambda x: [x], lambda x: {"a": (x,)}])
def test_a_result_is_dumped_by_its_own_library(around: Any) -> None:
    text = result_of(lambda_tool(around(Dumped(when="now", secret="hidden")))).text
    assert '{"when":"NOW","secret":"**********"}' in text
    assert '{"when":"NOW"}' in result_of(lambda_tool(around(Shouted("now")))).text


def lambda_tool(value: Any) -> Tool:
    return tool(name="give")(lambda: value)


def test_surrogates_in_a_model_are_no_failure() -> None:
    result = result_of(lambda_tool([Town.model_construct(name="\ud800")]))
    assert not result.is_error
    assert "\ufffd" in result.text


@pytest.mark.parametrize("kind", [Town, list[Town], Plain, Known])
async def test_an_answer_is_asked_for_as_a_model(kind: Any) -> None:
    good: Any = {"name": "Oslo"}
    good = [good] if kind == list[Town] else good if kind is Town else {"street": STREET}
    text = json.dumps({"value": good} if kind == list[Town] else good)
    client = ScriptedClient([say('{"name": "0", "street": 1}'), say(text)])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client)
        result = await pod.run("Where?", output=kind)
    instance = result.output[0] if kind == list[Town] else result.output
    assert isinstance(instance, Town if kind in (Town, list[Town]) else kind)
    schema = client.requests[0].output_schema
    assert schema is not None
    assert schema["type"] == "object"


async def test_a_model_reaches_a_tool_of_a_pod() -> None:
    @tool
    def visit(town: Town) -> Town:
        return town.model_copy(update={"within": Town(name="Norge")})

    client = ScriptedClient([call("visit", {"town": {"name": "Oslo"}}), say("done")])
    async with PodSystem() as system:
        pod = await system.spawn(PodManifest.of(), client=client, tools=[visit])
        await pod.run("go")
        (result,) = [item for item in await pod.history() if isinstance(item, ToolResult)]
    assert json.loads(result.text)["within"]["name"] == "Norge"


def test_pydantic_is_never_imported_by_polypod() -> None:
    code = (
        "import sys, dataclasses, actors\n"
        "from actors.tools.base import tool\n"
        "@dataclasses.dataclass\nclass A:\n    x: int\n"
        "tool(name='t')(lambda a=None: A(1)).arguments.convert({'a': 1})\n"
        "assert 'pydantic' not in sys.modules and 'annotated_types' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
