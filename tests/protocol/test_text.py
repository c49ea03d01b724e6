"""Whatever text comes in can be encoded, and what could be encoded before is left as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.text import encodable, encodable_json, with_article

any_text = st.text(st.characters(codec=None, exclude_categories=[]))  # lone surrogates too
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | any_text,
    lambda inner: st.lists(inner) | st.dictionaries(any_text, inner) | st.tuples(inner, inner),
)


@given(any_text)
def test_any_text_can_be_encoded_and_encodable_text_is_untouched(text: str) -> None:
    clean = encodable(text)
    clean.encode()
    assert encodable(clean) == clean
    if "�" not in clean:
        assert clean.encode("utf-16", "surrogatepass") == text.encode("utf-16", "surrogatepass")


@given(st.text())
def test_two_halves_of_a_pair_become_their_character(text: str) -> None:
    escaped = json.loads(json.dumps(text))
    halves = text.encode("utf-16-le", "surrogatepass")
    split = "".join(chr(int.from_bytes(halves[at : at + 2], "little")) for at in range(0, len(halves), 2))
    assert encodable(split) == text == encodable(escaped)


def test_half_a_pair_becomes_the_replacement_character() -> None:
    assert encodable("a\ud83d b\udc4d") == "a� b�"


@given(json_values)
def test_a_value_keeps_its_shape_and_can_be_encoded(value: Any) -> None:
    json.dumps(encodable_json(value), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "said", ["an int", "a dict", "an Unwritable", "a UserItem", "a UnionType", "an object"]
)
def test_a_noun_has_its_article(said: str) -> None:
    assert with_article(said.split()[1]) == said
