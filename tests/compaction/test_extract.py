import msgspec
from histories import called, result, said, user

from actors.compaction.extract import EXTRACTOR_PROMPT, Decision, Extracted, UserRequest, extractor_request
from actors.compaction.tokens import text_tokens


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
