"""Pictures that no server takes are never sent: they would be refused with every later request too."""

import base64
import json
from typing import Any

import pytest
from client_kit import answer_from
from llm_server import Exchange, RawServer, error_reply, stream_reply
from messages_kit import HELLO
from responses_kit import MESSAGE, event_bytes

from actors.llm.anthropic import dialect as anthropic_dialect
from actors.llm.anthropic.client import AnthropicClient
from actors.llm.anthropic.request import body_of as anthropic_body
from actors.llm.base import Request
from actors.llm.legal import REFUSED_PICTURE
from actors.llm.openai import dialect as openai_dialect
from actors.llm.openai.client import OpenAIClient
from actors.llm.openai.request import body_of as openai_body
from actors.llm.responses import dialect as responses_dialect
from actors.llm.responses.client import ResponsesClient
from actors.llm.responses.request import body_of as responses_body
from protocol.errors import ModelError
from protocol.items import AssistantItem, ImagePart, SystemItem, ToolCall, ToolResult, UserItem
from protocol.pictures import sound_picture

JPEG = base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(60)).decode()
FORMATS = {
    "openai": lambda request: openai_body(request, "m", openai_dialect.Dialect()),
    "responses": lambda request: responses_body(request, "m", responses_dialect.Dialect()),
    "anthropic": lambda request: anthropic_body(request, "m", anthropic_dialect.Dialect()),
}
#: What is said with a picture: where pictures are sent, and where text stands for them.
CALL = ToolCall("c1", "look", {})


def items_with(part: ImagePart) -> list[Any]:
    said = AssistantItem((), (CALL,))
    return [
        UserItem.of(["see", part]),
        said,
        ToolResult.of(CALL, ["shot", part]),
        SystemItem.of(["note", part]),
    ]


def body(form: str, part: ImagePart) -> str:
    return json.dumps(json.loads(FORMATS[form](Request(items_with(part)))))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "part",
    [
        ImagePart(),
        ImagePart(data=""),
        ImagePart(data=" \n", url=""),
        ImagePart(data="no base64!"),
        ImagePart(data="AAA"),
        ImagePart(data="\u00fc\u00fc\u00fc\u00fc"),
    ],
)
def test_a_picture_without_sound_data_is_words(form: str, part: ImagePart) -> None:
    sent = body(form, part)
    assert "cannot be shown" in sent
    assert not any(each in sent for each in ("image_url", "input_image", '"image"', "base64,"))


@pytest.mark.parametrize("form", FORMATS)
def test_a_picture_is_sent_with_the_media_type_that_its_data_have(form: str) -> None:
    lines = "\n".join(JPEG[at : at + 20] for at in range(0, len(JPEG), 20))
    for given in (ImagePart("image/png", JPEG), ImagePart("image/jpg", lines), ImagePart("", JPEG)):
        assert body(form, given) == body(form, ImagePart("image/jpeg", JPEG))
    assert JPEG in body(form, ImagePart(data=f"data:image/jpeg;base64,{JPEG}"))


def test_a_picture_that_is_sound_is_what_it_was() -> None:
    for part in (ImagePart("image/jpeg", JPEG), ImagePart("image/heic", "AAAA"), ImagePart(url="http://h/x")):
        assert sound_picture(part) is part


def test_results_with_pictures_are_words_for_a_model_of_anthropics_format_that_sees_none() -> None:
    blind = anthropic_dialect.Dialect(images=False)
    sent = anthropic_body(Request(items_with(ImagePart("image/jpeg", JPEG))), "m", blind)
    assert JPEG.encode() not in sent
    assert sent.count(b"a picture, which this model cannot see") == 3


SAID = (
    b'data: {"choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)
SERVERS: dict[str, tuple[Any, bytes]] = {
    "openai": (OpenAIClient, SAID),
    "responses": (ResponsesClient, b"".join(event_bytes(MESSAGE))),
    "anthropic": (AnthropicClient, HELLO),
}
SHOT = [UserItem.of("look"), AssistantItem((), (CALL,)), ToolResult.of(CALL, [ImagePart("image/jpeg", JPEG)])]


@pytest.mark.parametrize("form", SERVERS)
async def test_a_picture_of_a_tool_that_a_server_refuses_fails_no_request(form: str) -> None:
    make, said = SERVERS[form]

    async def script(exchange: Exchange) -> None:
        has_picture = JPEG.encode() in exchange.received.body
        await exchange.send(
            error_reply("400 Bad Request", "odd picture") if has_picture else stream_reply(said)
        )

    async with RawServer(script) as server, make(server.url, "m") as client:
        for requests in (2, 4):  # the next picture may be taken
            assert (await answer_from(client, Request(SHOT))).item.text
            assert len(server.received) == requests
            assert REFUSED_PICTURE in server.received[-1].body.decode()
        with pytest.raises(ModelError, match="odd picture"):  # one of the user's own is theirs to change
            await answer_from(client, Request([UserItem.of([ImagePart("image/jpeg", JPEG)])]))
        assert len(server.received) == 5


@pytest.mark.parametrize("form", SERVERS)
async def test_a_request_that_is_refused_for_another_reason_is_refused_with_that(form: str) -> None:
    refusals = [error_reply("400 Bad Request", f"odd tools, {n}") for n in range(2)]
    async with RawServer(*refusals) as server, SERVERS[form][0](server.url, "m") as client:
        with pytest.raises(ModelError, match="odd tools, 0"):
            await answer_from(client, Request(SHOT))
        assert len(server.received) == 2


@pytest.mark.parametrize("form", SERVERS)
async def test_a_picture_that_was_refused_is_not_sent_again_and_later_ones_are(form: str) -> None:
    make, said = SERVERS[form]
    other = base64.b64encode(b"\xff\xd8\xff\xe0" + b"1" * 60).decode()

    async def script(exchange: Exchange) -> None:
        has_odd = JPEG.encode() in exchange.received.body
        await exchange.send(error_reply("400 Bad Request", "odd picture") if has_odd else stream_reply(said))

    later = ToolCall("c2", "look", {})
    longer = [*SHOT, AssistantItem((), (later,)), ToolResult.of(later, [ImagePart("image/jpeg", other)])]
    async with RawServer(script) as server, make(server.url, "m") as client:
        scratch: dict[str, Any] = {}
        for items, requests in ((SHOT, 2), (SHOT, 3), (longer, 4)):
            assert (await answer_from(client, Request(items, scratch=scratch))).item.text
            assert len(server.received) == requests
        assert other in server.received[-1].body.decode()


@pytest.mark.parametrize(
    "words",
    [
        "You uploaded an unsupported image. Please make sure your image has one of the following formats: png",
        "Unsupported MIME type: image/svg+xml",
        "image is not supported: its dimensions exceed 8000 pixels",
        "Only base64 data is supported for an image_url; unknown image",
    ],
)
def test_a_refusal_of_one_picture_does_not_hide_all_others(words: str) -> None:
    request = Request(items_with(ImagePart("image/jpeg", JPEG)))
    assert openai_dialect.adapted(openai_dialect.Dialect(), words, request) is None
    assert responses_dialect.adapted(responses_dialect.Dialect(), words, request) is None
    assert anthropic_dialect.adapted(anthropic_dialect.Dialect(), words) is None
