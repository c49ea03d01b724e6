"""What a chain reads from a request, pure."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.routing.chain.task import (
    last_words_at,
    notes_of,
    offered,
    scratch_of,
    task_start,
    task_words,
    tier_at_work,
    unique,
    with_feedback,
)
from polypod import (
    AssistantItem,
    AttemptRecord,
    Request,
    SystemItem,
    ToolCall,
    ToolResult,
    ToolSpec,
    UserItem,
)
from protocol.routing import AttemptVerdict

CALL = ToolCall("c", "look")
ITEMS = st.lists(
    st.sampled_from(
        [
            UserItem.of("u"),
            UserItem(()),
            SystemItem.of("s"),
            AssistantItem.of("a"),
            AssistantItem(cut=True),
            AssistantItem((), (CALL,), tier="a"),
            AssistantItem((), (CALL,), tier="team > b"),
            ToolResult.of(CALL, "r"),
        ]
    ),
    max_size=12,
)


@given(st.lists(st.sampled_from("abc")))
def test_names_of_tiers_are_unique_and_begin_with_their_models(names):
    made = unique(names)
    assert len(set(made)) == len(names)
    assert all(one.startswith(each) for one, each in zip(made, names, strict=True))


@given(ITEMS, st.none() | st.integers(0, 20))
def test_a_task_begins_within_its_items_and_behind_the_last_whole_answer(items, size):
    at = task_start(Request(items, task_items=size))
    assert 0 <= at <= len(items)
    if size is None:
        assert not [
            each for each in items[at:] if isinstance(each, AssistantItem) and not (each.calls or each.cut)
        ]


@given(ITEMS, st.lists(st.text(min_size=1), max_size=3))
def test_feedback_joins_the_words_at_one_place_and_changes_nothing_else(items, notes):
    at = last_words_at(items, 0)
    shown = list(with_feedback(items, at, notes))
    assert len(shown) == len(items)
    changed = [n for n, (one, other) in enumerate(zip(items, shown, strict=True)) if one != other]
    assert changed == ([] if at is None or not notes else [at])
    if changed:
        assert shown[at].text == items[at].text + "".join(
            f"\n\nPrior attempt feedback: {each}" for each in notes
        )
        assert task_words(items, 0) == "\n\n".join(
            each.text for each in items if isinstance(each, UserItem) and each.text
        )


@given(ITEMS)
def test_the_tier_at_work_is_that_of_the_last_answer_of_the_task(items):
    last = next((each for each in reversed(items) if isinstance(each, AssistantItem)), None)
    found = tier_at_work(items, 0, ["a", "b"])
    assert found == {None: None, "a": 0, "team > b": 1}[None if last is None else last.tier]
    assert tier_at_work(items, len(items), ["a", "b"]) is None


def test_a_tier_is_offered_what_its_rule_says():
    tools = (ToolSpec("r", "", {}, "read_only"), ToolSpec("w", "", {}), ToolSpec("i", "", {}, "interactive"))
    assert [each.name for each in offered(tools, "read_only")] == ["r"]
    assert offered(tools, "all") == tools
    assert offered(tools, "none") == ()


def test_a_scratch_begins_anew_where_a_tier_is_shown_something_else():
    request = Request([])
    plain, noted = scratch_of(request, "a"), scratch_of(request, "a", (0, ("note",)))
    plain["x"] = noted["x"] = 1
    assert scratch_of(request, "a") is plain
    assert scratch_of(request, "a", (0, ("note",))) is noted
    assert scratch_of(request, "a", (0, ("note", "another"))) == {}
    assert scratch_of(request, "b") == {}
    assert len(request.scratch) == 1


def test_only_what_was_said_of_rejected_answers_of_these_models_is_known_again():
    def attempt(model: str, verdict: AttemptVerdict, feedback: str) -> AttemptRecord:
        return AttemptRecord(model, "local", 1, False, verdict, feedback)

    attempts = [
        attempt("a", "escalate", "too short"),
        attempt("a", "escalate", ""),
        attempt("inner", "escalate", "of a chain within"),
        attempt("b", "escalate", "verifier error: no verdict within 1 s"),
        attempt("b", "error", "unreachable"),
        attempt("b", "accept", "well done"),
    ]
    assert notes_of(attempts, {"a", "b"}) == ("too short",)
