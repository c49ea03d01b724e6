"""What servers list, as models see it: names and schemas that every provider takes; pure."""

import contextlib
import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from actors.tools.mcp.depth import cut_deep
from actors.tools.mcp.listing import MOST_TOOLS, Listing, listing_of, simplify_listing, usable_tools
from actors.tools.mcp.names import tool_name
from actors.tools.mcp.schemas import SchemaError, usable_schema
from protocol.shared_servers import ListedTool

SCHEMAS = st.recursive(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["string", "integer", "boolean"])}, optional={"nullable": st.booleans()}
    ),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"type": st.just("array"), "items": inner}),
        st.fixed_dictionaries(
            {
                "type": st.just("object"),
                "properties": st.dictionaries(st.from_regex(r"\A[a-z_.]{1,9}\Z"), inner, max_size=3),
            }
        ),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=3)}),
    ),
    max_leaves=8,
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "properties", "$ref", "anyOf", "required", "$defs", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(st.text(max_size=90), st.text(max_size=90))
def test_every_name_is_legal_and_two_tools_never_share_one(one: str, other: str) -> None:
    for name in (one, other):
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", tool_name("server", name))
    assert (tool_name("server", one) == tool_name("server", other)) == (one == other)


def test_a_name_that_is_legal_stays() -> None:
    assert tool_name("git", "git_log") == "git__git_log"
    assert tool_name("a", "x" * 61) == f"a__{'x' * 61}"
    assert len(tool_name("a" * 32, "x" * 500)) == 64


@given(SCHEMAS)
def test_what_is_sound_stays_sound_and_is_an_object(schema: dict[str, Any]) -> None:
    whole = {"type": "object", "properties": {"a": schema}}
    usable, words = usable_schema(whole)
    Draft202012Validator.check_schema(usable)
    assert words == ""
    assert usable["type"] == "object"
    assert usable_schema(usable) == (usable, "")


@given(ANY_JSON)
def test_whatever_is_listed_is_an_object_or_refused_with_words(schema: Any) -> None:
    with contextlib.suppress(SchemaError):
        usable, _ = usable_schema(schema)
        assert usable["type"] == "object"
        assert isinstance(usable["properties"], dict)
        assert not usable.keys() & {"anyOf", "oneOf", "allOf", "$ref", "enum", "not"}


def test_alternatives_at_the_top_are_reported_in_words() -> None:
    one = {"properties": {"a": {"type": "string"}}, "required": ["a"]}
    usable, words = usable_schema({"oneOf": [one, {"properties": {"b": {}}}], "allOf": [{"required": ["c"]}]})
    assert usable == {"type": "object", "properties": {"a": {"type": "string"}, "b": {}}, "required": ["c"]}
    assert '"required":["a"]' in words


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ([], "not an object"),
        ({"type": "string"}, "its arguments must be an object"),
        ({"properties": {"a b": {}}}, "the argument name 'a b'"),
        ({"properties": {"a": {"$ref": "#/$defs/gone"}}}, "refers to '#/$defs/gone'"),
        ({"properties": {"a": {"$ref": "https://example.com/x"}}}, "refers to 'https://example.com/x'"),
        ({"$ref": "#"}, "refers to itself"),
    ],
)
def test_what_no_provider_would_take_is_refused(schema: Any, why: str) -> None:
    with pytest.raises(SchemaError, match=re.escape(why)):
        usable_schema(schema)


@given(ANY_JSON)
def test_of_a_message_that_is_not_deep_nothing_is_cut(value: Any) -> None:
    line = json.dumps([value, '"[{\\"']).encode()
    assert cut_deep(line) == line


def test_what_is_nested_too_deep_is_cut_and_costs_nothing_else() -> None:
    deep = '{"a[": ' * 3000 + '"]"' + "}" * 3000
    message = json.loads(cut_deep(f'{{"tools": [{deep}, {deep}, "{{"]}}'.encode()))
    assert message["tools"][2] == "{"
    with pytest.raises(SchemaError, match="nested more than 128 deep"):
        usable_schema(message["tools"][1])


def test_one_odd_tool_does_not_cost_the_others() -> None:
    sound = {
        "name": "a",
        "inputSchema": {"type": "object"},
        "annotations": {"readOnlyHint": True, "x": 1},
        "icons": 5,
    }
    result = {
        "tools": [
            sound,
            {"name": 5},
            None,
            {"name": "b", "inputSchema": {"type": "string"}, "outputSchema": 3},
        ]
    }
    simplify_listing(result)
    shown = [
        SimpleNamespace(
            name=each["name"],
            description=each.get("description"),
            input_schema=each["inputSchema"],
            meta=each["_meta"],
            annotations=SimpleNamespace(read_only_hint=True) if "annotations" in each else None,
        )
        for each in result["tools"]
    ]
    tools, left_out = usable_tools(listing_of(shown, more=False), lambda _: True)
    assert [(each.name, each.read_only) for each in tools] == [("a", True)]
    assert left_out == ["'b': its arguments must be an object, not 'string'"]


def listing_of_names(*names: str, unusable: int = 0, more: bool = False) -> Listing:
    tools = [ListedTool(f"odd_{n}", "", {"type": "string"}, read_only=False) for n in range(unusable)]
    return Listing((*tools, *(ListedTool(name, "", {}, read_only=False) for name in names)), more)


def admit_all(_: str) -> bool:
    return True


def test_behind_very_many_tools_that_nobody_can_use_the_others_are_there_and_nothing_is_left_out_unsaid() -> (
    None
):
    """Those beyond the first 2,001 of a list were dropped without a word where some of these were odd."""
    tools, left_out = usable_tools(listing_of_names("a", "b", unusable=3000), admit_all)
    assert [each.name for each in tools] == ["a", "b"]
    assert left_out[0] == "'odd_0': its arguments must be an object, not 'string'"
    assert left_out[20:] == ["and 2,980 more"]


def test_of_what_a_pod_may_have_the_first_so_many_are_there_and_the_rest_is_named_once() -> None:
    names = [f"{kind}_{n}" for n in range(MOST_TOOLS + 1) for kind in ("get", "put")]
    tools, left_out = usable_tools(listing_of_names(*names, more=True), lambda name: name.startswith("put"))
    assert [each.name for each in tools] == [f"put_{n}" for n in range(MOST_TOOLS)]
    assert left_out == ["all beyond the first 2,000"]
    admitted, left_out = usable_tools(listing_of_names(*names, more=True), lambda name: name == "put_7")
    assert [each.name for each in admitted] == ["put_7"]
    assert left_out == ["all beyond the first 4,002 that it lists"]
