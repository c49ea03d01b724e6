import random

import pytest
from histories import called, histories, result, said, turn, user
from hypothesis import given
from hypothesis import strategies as st

from actors.compaction.compose import Split, compose, split
from actors.compaction.cut import cut
from actors.compaction.meter import TokenMeter
from actors.compaction.policy import MUST_SHRINK_ABOVE, Limits, summary_budget, words_budget
from actors.compaction.prune import Pruner
from actors.compaction.summary import (
    HEADINGS,
    SUMMARISER_PROMPT,
    extractive_summary,
    section,
    summariser_request,
    with_words,
)
from actors.compaction.tokens import encoded_size, text_tokens, tokens_in
from actors.compaction.user_words import words_of
from protocol.items import UserItem


def compacted(items, retained=300, budget=600, words=2000, summary=None):
    """A history after one compaction; without ``summary`` by the extractive one."""
    parts = split(items, cut(items, TokenMeter(items, Pruner(items)).since, retained))
    if summary is None:
        text = extractive_summary(parts, budget=budget, words=words)
    else:
        text = with_words(summary, words_of(parts.folded), words)
    return compose(text, parts.kept).items


def all_text(items):
    return "\n".join(item.text for item in items)


def test_the_prompt_asks_for_the_five_headings_in_their_order():
    places = [SUMMARISER_PROMPT.index(f"## {heading}") for heading in HEADINGS]
    assert places == sorted(places)


def test_a_request_says_the_transcript_the_files_the_tasks_and_what_came_before():
    text = summariser_request(
        "User: hi", earlier="Before.", part=2, parts=3, files=["a.py"], snapshot="1 open"
    )
    for reported in ("User: hi", "Before.", "part 2 of 3", "a.py", "1 open"):
        assert reported in text
    assert "part" not in summariser_request("User: hi")


def test_an_extractive_summary_has_the_five_headings_and_what_matters_under_them():
    items = [
        user("port the parser to Rust"),
        called("a", name="read_file", path="src/parser.py", text="I decided to use nom instead of pest."),
        result("a", name="read_file"),
        said("The lexer is done, the grammar is next."),
    ]
    text = extractive_summary(Split(items, []), budget=1000, words=1000)
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == list(HEADINGS)
    assert section(text, "Active Task") == "port the parser to Rust"
    assert "I decided to use nom instead of pest." in section(text, "Key Decisions")
    assert "- port the parser to Rust" in section(text, "User Directives")
    work = section(text, "Current Work")
    assert "The lexer is done" in work
    assert "src/parser.py" in work
    assert "read_file (1)" in work


def test_an_extractive_summary_carries_the_sections_of_the_one_before():
    before = compose("## Completed Tasks\n- the lexer\n\n## Key Decisions\n- we chose nom", []).items
    text = extractive_summary(Split([*before, user("go on")], []), budget=1000, words=500)
    assert section(text, "Completed Tasks") == "- the lexer"
    assert section(text, "Key Decisions") == "- we chose nom"


@pytest.mark.parametrize(
    "title", ["## User Directives", "# 4. user directives:", "### User Directives (all)"]
)
def test_headings_are_found_as_models_write_them(title):
    assert section(f"## Active Task\nx\n{title}\nbe kind\n## Current Work", "User Directives") == "be kind"


def work(turns, random_):
    """Turns of a long run: calls, results of all sizes, talk."""
    items = []
    for n in range(turns):
        items += turn(n, random_.choice([20, 300, 3000, 12_000]))
        items.append(
            said(random_.choice(["Seen.", "I decided to go on because it works.", "Next: " + "y" * 200]))
        )
    return items


@pytest.mark.parametrize("seed", range(4))
def test_user_instructions_survive_10_compactions(seed):
    random_ = random.Random(seed)
    items, facts = [], []
    for compaction in range(10):
        for _ in range(random_.randint(1, 4)):
            fact = f"The launch code of silo {len(facts)} is {random_.getrandbits(40):x}; never print it."
            facts.append(fact)
            items += [user(fact), *work(random_.randint(1, 15), random_)]
        items = compacted(items, retained=random_.choice([0, 300, 2000]))
        assert all(fact in all_text(items) for fact in facts), f"after compaction {compaction}"
    assert TokenMeter(items, Pruner(items)).occupancy() < 6000
    assert len([item for item in items if isinstance(item, UserItem)]) < len(facts)


def test_user_instructions_survive_a_summariser_that_forgets_them():
    items = [user("Always answer in Latin."), *work(3, random.Random(1)), user("Now count to ten.")]
    for _ in range(10):
        items = [
            *compacted(items, summary="Nothing much happened."),
            user("go on"),
            *work(2, random.Random(2)),
        ]
    assert "Always answer in Latin." in all_text(items)
    assert "Now count to ten." in all_text(items)


def test_a_history_does_not_grow_from_compaction_to_compaction_while_nothing_is_said():
    items = compacted([user("go"), *work(20, random.Random(5))])
    sizes = []
    for _ in range(5):
        items = compacted([*items, *work(20, random.Random(5))])
        sizes.append(TokenMeter(items, Pruner(items)).occupancy())
    assert max(sizes) <= min(sizes) + 20


@given(histories, st.integers(60, 2000), st.integers(200, 2000))
def test_an_extractive_summary_keeps_to_its_budgets_and_is_the_same_every_time(items, budget, words):
    parts = split(items, cut(items, lambda index: len(items) - index, 2))
    text = extractive_summary(parts, budget=budget, words=words)
    assert text == extractive_summary(parts, budget=budget, words=words)
    assert text_tokens(text) <= budget + words + 80


@given(histories)
def test_every_word_of_a_user_that_fits_is_found_after_a_compaction(items):
    after = compacted(items, retained=0, words=1_000_000)
    for item in items:
        if isinstance(item, UserItem):
            assert any(
                " ".join(item.text.split()).casefold() == " ".join(text.split()).casefold()
                for text in ["", *words_of(after)]
            )


@given(histories.map(lambda items: items * 8), st.sampled_from(["threshold", "overflow"]))
def test_an_automatic_compaction_without_a_model_never_grows_what_it_folds(items, reason):
    meter = TokenMeter(items, Pruner(items))
    before = meter.occupancy()
    if before <= MUST_SHRINK_ABOVE:
        return
    retained = Limits(None, None, 8000).retained_for(reason, before)
    parts = split(items, cut(items, meter.since, retained))
    text = extractive_summary(parts, budget=summary_budget(before), words=words_budget(reason, before, None))
    folded = compose(text, parts.kept).items
    after = TokenMeter(folded, Pruner(folded)).occupancy()
    newest = next((item for item in reversed(items) if isinstance(item, UserItem)), UserItem.of(""))
    assert after <= before + tokens_in(encoded_size(newest))
