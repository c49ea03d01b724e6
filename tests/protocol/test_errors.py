"""Errors: one tree, drawn at the top of its module, and the same as data."""

import inspect
import re

import pytest

from protocol import errors
from protocol.errors import (
    Failure,
    MissingKey,
    ModelError,
    PolypodError,
    RunFailed,
    SessionInUse,
)
from protocol.foreign import named_words, words_of


def tree(root: type[PolypodError]) -> set[str]:
    return {root.__name__}.union(
        *(tree(kind) for kind in root.__subclasses__() if kind.__module__ == errors.__name__)
    )


def test_the_drawing_shows_the_tree_as_it_is():
    drawn = re.findall(r"^[│├└─ ]*([A-Z]\w+)\b", (errors.__doc__ or "").split("\n\n", 1)[1], re.MULTILINE)
    assert set(drawn) == tree(PolypodError)
    assert len(drawn) == len(set(drawn))


def test_a_failure_says_what_an_error_said_and_what_to_do():
    failure = Failure.of(PolypodError("it broke", hint="mend it"))
    assert str(failure) == "it broke (mend it)"
    assert "broke" in failure


def test_words_that_are_a_bare_value_say_of_what():
    assert [words_of(error) for error in (KeyError("city"), SystemExit(3))] == [
        "KeyError: 'city'",
        "SystemExit: 3",
    ]


@pytest.mark.parametrize("words", [words_of, named_words])
def test_a_group_says_what_is_in_it(words):
    inner = ExceptionGroup("inner", [KeyError("city")])
    said = words(BaseExceptionGroup("outer", [ValueError("no town"), inner]))
    assert said.endswith(
        "outer (2 sub-exceptions): ValueError: no town; ExceptionGroup: inner (1 sub-exception): KeyError: 'city'"
    )
    assert words(ExceptionGroup("many", [ValueError(str(n)) for n in range(99)])).endswith(
        "ValueError: 7; 91 more"
    )


def test_a_foreign_error_without_words_is_shown_as_it_is():
    assert Failure.of(KeyError()).message == "KeyError()"


def test_a_failed_run_carries_its_cause_as_error_and_as_data():
    cause = ModelError("no", kind="rate_limit", status=429, retry_after=3.0, where="h:1")
    failed = RunFailed(cause, run_id="r1")
    assert failed.cause is cause
    assert failed.failure.kind == "ModelError"
    assert failed.details() == {
        "cause": "ModelError", "run_id": "r1", "kind": "rate_limit", "status": 429, "retry_after": 3.0, "where": "h:1",
    }  # fmt: skip


@pytest.mark.parametrize("kind", errors.MODEL_ERROR_KINDS)
def test_what_may_work_later_is_retryable(kind: errors.ModelErrorKind):
    later = {"rate_limit", "overloaded", "connection", "timeout", "server"}
    assert ModelError("x", kind=kind).retryable is (kind in later)


def test_a_missing_key_names_the_variable_and_what_needs_it():
    error = MissingKey("SOME_KEY", what="the model")
    assert "SOME_KEY" in str(error)
    assert "the model needs a key" in str(error)


def test_a_session_in_use_names_its_holder():
    error = SessionInUse("s1", pid=7, host="here", since=1.0, pod="reader")
    assert "pod 'reader' of process 7 on here" in str(error)
    assert error.details()["since"] == 1.0


def test_every_error_has_a_sentence_that_says_what_it_means():
    for name in tree(PolypodError):
        assert inspect.getdoc(getattr(errors, name)), name
