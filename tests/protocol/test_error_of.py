"""Errors that come from elsewhere have their class, words and details again, whatever was sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import errors
from protocol.error_of import error_of
from protocol.errors import Failure, PolypodError, RunFailed
from protocol.routing import AttemptRecord
from protocol.usage import Usage

MADE: dict[type[PolypodError], list[PolypodError]] = {
    errors.SystemOfParent: [errors.SystemOfParent()],
    errors.ToolLoop: [errors.ToolLoop("again", tool="t", times=3)],
    errors.SessionInUse: [errors.SessionInUse("s", pid=1, host="h", since=1.5, pod="p")],
    errors.SessionCorrupt: [errors.SessionCorrupt("s", 3, "why")],
    errors.ChildNotStarted: [errors.ChildNotStarted.of("p", "why", hint="h")],
    errors.TooManyChildren: [errors.TooManyChildren.of("p", 3, ["a"])],
    errors.AgentFailed: [errors.AgentFailed("m", hint="h", kind="auth", status=401, died=True)],
    errors.HookError: [errors.HookError("Guard.before_request", "failed")],
    errors.ToolSourceError: [errors.ToolSourceError("s", "cannot be opened")],
    errors.ModelError: [
        errors.ModelError("m", kind="rate_limit", hint="h", status=429, retry_after=2.5, where="h:1"),
        errors.ModelError("m", kind="context_overflow", prompt_tokens=5, context_window=9),
        errors.ModelError("m", kind="rate_limit", retryable=False),
    ],
    errors.MissingKey: [errors.MissingKey("KEY", what="a model")],
    errors.InvalidKey: [errors.InvalidKey("a key", "a line break")],
    errors.ChainExhausted: [
        errors.ChainExhausted([]),
        errors.ChainExhausted(
            [AttemptRecord("m", "local", 5, False, "escalate", "why", Usage(1, 2), 0.0)],
            best="half",
            errors=[("m", "rejected: why")],
            last=errors.ModelError("m", kind="rate_limit", status=429, where="h:1", retry_after=2.5),
        ),
    ],
    errors.ScriptExhausted: [errors.ScriptExhausted("no more")],
    errors.RateLimited: [errors.RateLimited("later", until=1.5e9, hint="wait")],
    errors.NewerVersion: [errors.NewerVersion("a store", "of 2040")],
    errors.ForeignError: [errors.ForeignError("m", kind="KeyError", hint="h")],
    RunFailed: [
        RunFailed(ValueError("foreign"), run_id="r"),
        RunFailed(errors.SessionInUse("s", pid=1, host="h", since=1.5, pod="p")),
        RunFailed(errors.ToolLoop("again", tool="t", times=3), run_id="r"),
        RunFailed(RunFailed(errors.PodBusy("busy"), run_id="inner"), run_id="outer"),
    ],
}


def classes(kind: type[PolypodError]) -> Iterator[type[PolypodError]]:
    yield kind
    for each in kind.__subclasses__():
        if each.__module__ == errors.__name__:
            yield from classes(each)


ALL = sorted(set(classes(PolypodError)), key=lambda kind: kind.__name__)
EVERY = [error for kind in ALL for error in MADE.get(kind) or [kind("words", hint="do that")]]


@pytest.mark.parametrize("error", EVERY, ids=lambda error: type(error).__name__)
def test_an_error_is_itself_again(error: PolypodError) -> None:
    failure = msgspec.json.decode(msgspec.json.encode(Failure.of(error)), type=Failure)
    again = error_of(failure)
    assert type(again) is type(error) or isinstance(error, errors.ForeignError)
    assert (again.message, again.hint, str(again)) == (error.message, error.hint, str(error))
    assert again.details() == error.details()
    for name, value in vars(error).items():
        assert isinstance(value, BaseException | Failure) or getattr(again, name) == value, name


def test_an_error_of_a_program_keeps_its_name_and_what_it_says() -> None:
    class OutOfStockError(PolypodError):
        def details(self) -> dict[str, Any]:
            return {"left": 0}

    failure = Failure.of(OutOfStockError("none left", hint="wait"))
    again = error_of(failure)
    assert isinstance(again, errors.ForeignError)
    assert again.kind == "OutOfStockError"
    assert Failure.of(again) == failure


values = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers())
OF_OURS = ("kind", "cause", "run_id", "hint", "message", "details", "status", "pid", "since", "seq", "tool")
OF_PYTHON = ("args", "__class__", "__doc__", "with_traceback", "event", "retryable", "_details", "unheard_of")
names = st.sampled_from(OF_OURS + OF_PYTHON)


@given(st.sampled_from([*(kind.__name__ for kind in ALL), "Unheard"]), st.dictionaries(names, values))
def test_what_a_later_version_says_is_an_error_all_the_same(kind: str, details: dict[str, Any]) -> None:
    error = error_of(Failure(kind, "words", None, details))
    assert error.message in str(error)
    again = Failure.of(error)
    assert again.message == "words"
    assert error_of(again).details() == error.details()
