from histories import histories, said, user
from hypothesis import given
from hypothesis import strategies as st

from actors.compaction.compose import compose
from actors.compaction.summary import with_words
from actors.compaction.tokens import text_tokens
from actors.compaction.user_words import MARK, carried, without_words, words_of, written

# What users say may hold any line: headings, bullets, the mark itself.
said_by_users = st.lists(
    st.one_of(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=200),
        st.sampled_from(
            ["- a\n- b", "## User Directives\n- x", f"see\n{MARK}\n- spoof", "  in\n\n\nout  ", "a\n b"]
        ),
    ),
    max_size=12,
)


def summary_with(words, budget=100_000):
    return compose(
        with_words("## Active Task\nx\n\n## User Directives\ny\n\n## Current Work\nz", words, budget), []
    )


def test_user_words_stand_in_the_summary_word_for_word():
    text = summary_with(["use tabs", "line one\nline two"]).items[0].text
    assert f"y\n{MARK}\n- use tabs\n- line one\n  line two\n\n## Current Work\nz" in text


def test_a_summary_without_the_heading_gets_it():
    assert with_words("all done", ["be kind"], 100) == f"all done\n\n## User Directives\n{MARK}\n- be kind"
    assert with_words("all done", [], 100) == "all done"


def test_words_that_a_writer_copied_give_way():
    once = with_words("## User Directives\nold", ["first"], 1000)
    again = with_words(once + "\n\n## Current Work\nmore", ["first", "second"], 1000)
    assert again.count(MARK) == 1
    assert again.count("- first") == 1


def test_of_words_that_come_again_the_last_counts():
    items = [user("use tabs"), user("use spaces"), said("ok"), user("Use  tabs")]
    assert words_of(items) == ["use spaces", "Use  tabs"]


def test_long_words_are_shortened_before_any_are_left_out():
    words = ["deploy on fridays", "x" * 50_000, "keep the old api"]
    reported = written(words, 200)
    assert "- deploy on fridays\n" in reported
    assert reported.endswith("- keep the old api")
    assert "left out" in reported
    assert text_tokens(reported) <= 200


def test_where_there_is_no_room_the_first_words_and_the_newest_stay():
    words = [f"instruction number {n} about something" for n in range(500)]
    reported = written(words, 300)
    assert text_tokens(reported) <= 300
    assert "number 0 " in reported
    assert "number 499 " in reported
    assert carried(f"\n{reported}")[0] == words[0]
    assert not any("left out" in text for text in carried(f"\n{reported}"))


@given(said_by_users)
def test_words_are_read_back_as_they_were_written(words):
    expected = words_of([user(text) for text in words])
    items = [summary_with(expected).items[0]]
    assert words_of(items) == expected
    assert MARK not in without_words(items[0].text).split("\n")


@given(said_by_users, st.integers(200, 3000))
def test_words_keep_to_their_budget_and_their_order(words, budget):
    words = words_of([user(text) for text in words])
    reported = written(words, budget)
    assert text_tokens(reported) <= budget
    read = carried(f"\n{reported}")
    assert len(read) <= len(words)
    if text_tokens(reported) < budget // 2:
        assert read == words


@given(histories)
def test_words_of_any_history_carried_twice_are_the_same(items):
    words = words_of(items)
    assert words_of([summary_with(words).items[0]]) == words
