"""Keys, headers and addresses as people paste them: cleaned where that is harmless, else refused by name."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.llm.address import base_url_of
from actors.llm.anthropic.client import AnthropicClient
from actors.llm.http.headers import header_of, key_of
from actors.llm.http.presets import list_models, server_for
from actors.llm.openai.client import OpenAIClient
from actors.system import PodSystem
from protocol.errors import InvalidKey, MissingKey, ModelError
from protocol.manifest import PodManifest

KEY = "sk-proj-0123456789abcdef"
BROKEN = [
    KEY[:5] + "\n" + KEY[5:],
    KEY[:5] + " " + KEY[5:],
    KEY[:5] + "\x07" + KEY[5:],
    KEY[:5] + "\xa0" + KEY[5:],
    KEY[:5] + "\u200b" + KEY[5:],
    f"\u201c{KEY}\u201d",
    f"\u00ab{KEY}\u00bb",
    f'"{KEY}"',
    f"'{KEY}'",
    KEY + "\u00e9",
]


@pytest.mark.parametrize("around", ["\n", " ", "\r\n", "\ufeff", "\xa0", "\t", "\u200b"])
def test_what_stands_around_a_key_is_taken_off(around: str):
    server = server_for("openai", environment={"OPENAI_API_KEY": f"{around}{KEY}{around}"})
    assert server.api_key == KEY


@pytest.mark.parametrize("key", BROKEN)
async def test_a_key_that_cannot_be_sent_is_refused_at_spawn_by_its_name(
    key: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SOME_KEY", key)

    async with PodSystem() as system:
        manifest = PodManifest.of(model="openai/m", base_url="http://127.0.0.1:9/v1", api_key_env="SOME_KEY")
        with pytest.raises(InvalidKey) as refused:
            await system.spawn(manifest)
        assert "SOME_KEY" in str(refused.value)
        assert KEY[6:] not in repr(refused.value)


@pytest.mark.parametrize("key", ["", " \n", "\ufeff"])
def test_a_key_of_nothing_is_missing(key: str):
    with pytest.raises(MissingKey):
        server_for("openai", environment={"OPENAI_API_KEY": key})


@pytest.mark.parametrize("key", BROKEN)
def test_a_client_refuses_a_key_that_cannot_be_sent(key: str):
    for kind in (OpenAIClient, AnthropicClient):
        with pytest.raises(InvalidKey):
            kind("http://127.0.0.1:9", "m", key)
    with pytest.raises(InvalidKey):
        asyncio.run(list_models("http://127.0.0.1:9/v1", api_key=key))


@pytest.mark.parametrize(
    "headers", [{"x y": "a"}, {"x": "a\nb"}, {"x": "\u201ca\u201d"}, {"": "a"}, {"x:": "a"}]
)
def test_a_header_that_cannot_be_sent_is_refused_without_its_value(headers: dict[str, str]):
    with pytest.raises(ModelError, match="header"):
        AnthropicClient("http://127.0.0.1:9", "m", headers=headers)


def test_a_header_is_trimmed_and_may_hold_blanks():
    assert header_of(" X-Name ", "\tone two\n") == ("X-Name", "one two")


@pytest.mark.parametrize("url", [" http://h/v1\n", "\ufeffhttp://h/v1/", "\u200bhttp://h/v1\xa0"])
def test_what_stands_around_a_base_url_is_taken_off(url: str):
    assert base_url_of(url) == "http://h/v1"


@pytest.mark.parametrize(
    "url",
    [
        "\u201chttp://h/v1\u201d",
        "http://h/v1\nx",
        "http://h /v1",
        'http://h/"v1"',
        "http://h/\u200bv1",
        "http://h/\u2019",
        "http://h/v1?x",
    ],
)
def test_a_base_url_with_quotes_or_blanks_in_it_is_refused(url: str):
    with pytest.raises(ModelError, match="not a base URL"):
        base_url_of(url)


@given(st.text(max_size=20))
def test_what_is_taken_for_a_key_can_be_sent_and_is_what_was_given(text: str):
    try:
        key = key_of(text, "the key")
    except InvalidKey:
        return
    assert key in text
    assert key.isascii()
    assert " " not in key
    assert not key or key.isprintable()
