"""What MCP tools give back, as parts for a model; pure."""

from importlib import import_module
from typing import Any

import pytest
from extras import skip_without

from actors.tools.mcp.content import parts_of_result
from protocol.items import ImagePart, TextPart

skip_without("mcp", "mcp")


def made(kind: str, **fields: Any) -> Any:
    """One of the SDK's types, which is imported by the worker that runs this alone."""
    return getattr(import_module("mcp_types"), kind)(**fields)


def texts(*words: str) -> list[Any]:
    return [made("TextContent", type="text", text=each) for each in words]


@pytest.mark.parametrize(
    ("said", "structured"),
    [
        (['{"a": 1}'], {"a": 1}),
        (["words"], {"content": "words"}),
        (["3"], {"result": 3}),
        (["a", "b"], {"result": ["a", "b"]}),
        (["words"], None),
    ],
)
def test_structured_content_that_a_text_says_is_not_said_again(said: list[str], structured: Any) -> None:
    parts = parts_of_result(texts(*said), structured)
    assert [part.text.strip() for part in parts] == said


def test_structured_content_that_no_text_says_is_reported_as_json() -> None:
    assert parts_of_result([], {"a": [1]}) == [TextPart('{"a":[1]}')]
    assert parts_of_result(texts("found it"), {"a": 1}) == [TextPart("found it"), TextPart('\n{"a":1}')]
    assert parts_of_result([], None) == []


def test_resources_are_what_a_model_can_use() -> None:
    def resource(contents: Any) -> Any:
        return made("EmbeddedResource", type="resource", resource=contents)

    text = made("TextResourceContents", uri="memo://1", text="a memo")
    picture = made("BlobResourceContents", uri="file:///a.png", mimeType="image/png", blob="QUJD")
    other = made("BlobResourceContents", uri="file:///a.zip", blob="QUJD")
    parts = parts_of_result([resource(each) for each in (text, picture, other)], None)
    assert parts[0].text == "[memo://1]\na memo"
    assert ImagePart("image/png", "QUJD") in parts
    assert parts[-1].text.strip() == "[file:///a.zip, application/octet-stream, 3 bytes: cannot be shown]"


def test_pictures_keep_their_place_among_texts() -> None:
    image = made("ImageContent", type="image", data="QUJD", mimeType="image/png")
    parts = parts_of_result([*texts("before"), image, *texts("behind")], None)
    assert parts == [TextPart("before"), ImagePart("image/png", "QUJD"), TextPart("behind")]
