import msgspec
from histories import called, histories, result, said, user
from hypothesis import given
from hypothesis import strategies as st

from actors.compaction.tokens import text_tokens
from actors.memory.findings import (
    EXTRACTOR_PROMPT,
    Decision,
    Extracted,
    UserRequest,
    extractor_request,
    portion,
)


def test_an_extraction_may_find_nothing():
    empty = '{"decisions": [], "discussions": [], "attempts": [], "requests": []}'
    found = msgspec.json.decode(empty, type=Extracted)
    assert found == Extracted()
    assert len(found) == 0


def test_an_extraction_has_four_lists_and_only_what_is_needed_in_them():
    text = '{"decisions": [{"chosen": "tabs"}], "requests": [{"intent": "port", "summary": "Port it", "target": "x"}]}'
    found = msgspec.json.decode(text, type=Extracted)
    assert found.decisions == (Decision("tabs"),)
    assert found.requests == (UserRequest("port", "Port it", "x"),)
    assert len(found) == 2


def test_the_prompt_names_every_field():
    for name in (
        "options",
        "chosen",
        "rationale",
        "topic",
        "points",
        "action",
        "result",
        "succeeded",
        "intent",
    ):
        assert name in EXTRACTOR_PROMPT


def test_an_extractor_reads_the_talk_and_not_what_went_through_the_tools():
    text = extractor_request(
        [user("port it"), called("a", path="p"), result("a", "content\n" * 99), said("done")]
    )
    assert "User: port it" in text
    assert "Assistant: done" in text
    assert "content" not in text


def test_an_extractor_reads_no_more_than_its_budget():
    text = extractor_request([user(f"{n} " + "x" * 400) for n in range(1000)], 5000)
    assert text_tokens(text) < 5100
    assert "999 x" in text
    assert extractor_request([]).count("[nothing was said]") == 1


@given(histories, st.integers(1, 500))
def test_portions_cover_a_history_without_a_gap_and_none_is_shortened_but_a_long_item(items, budget):
    start = 0
    while start < len(items):
        count = portion(items[start:], budget)
        assert 1 <= count <= len(items) - start
        text = extractor_request(items[start : start + count], budget)
        assert count == 1 or "left out" not in text
        start += count
