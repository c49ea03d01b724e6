"""A failed request is sent again when that may help, not too soon and not too late."""

import asyncio
import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.llm.base import Assembler, Block, End, Request, TextChunk
from actors.llm.retry import GiveUp, RetryPolicy, Wait, ask, decide
from protocol.errors import ModelError


def failure(kind: str = "server", **facts: object) -> ModelError:
    return ModelError("it failed", kind=kind, where="127.0.0.1:1", **facts)


def test_waits_double_up_to_a_cap_and_are_jittered():
    policy = RetryPolicy(attempts=9)
    most = [decide(n, failure(), now=0, rng=lambda: 1.0, policy=policy) for n in range(1, 8)]
    assert [wait.seconds for wait in most] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert decide(3, failure(), now=0, rng=lambda: 0.25) == Wait(0.5)
    assert decide(1, failure(), now=0, rng=lambda: 0.0) == Wait(0.0)


def test_the_fourth_failure_is_the_last():
    error = failure()
    assert isinstance(decide(3, error, now=0), Wait)
    assert decide(4, error, now=0) == GiveUp(error)


@pytest.mark.parametrize(
    "kind", ["auth", "billing", "context_overflow", "invalid_request", "not_found", "content_filter"]
)
def test_what_will_fail_again_is_not_sent_again(kind):
    error = failure(kind)
    assert decide(1, error, now=0) == GiveUp(error)


def test_a_server_is_not_asked_before_it_wants_to_be():
    assert decide(1, failure(retry_after=7.0), now=0, rng=lambda: 0.5) == Wait(7.25)


def test_retry_after_beyond_the_deadline_ends_at_once_and_says_when_to_come_back():
    decision = decide(1, failure("overloaded", retry_after=7500.0, status=503), now=100.0, deadline=130.0)
    assert isinstance(decision, GiveUp)
    assert decision.error.kind == "rate_limit"
    assert not decision.error.retryable
    assert "2 h 5 min" in str(decision.error)
    assert decision.error.retry_after == 7500.0


def test_without_a_deadline_a_minute_is_waited_and_no_more():
    assert isinstance(decide(1, failure("rate_limit", retry_after=60.0), now=0), Wait)
    assert isinstance(decide(1, failure("rate_limit", retry_after=61.0), now=0), GiveUp)


def test_within_a_long_deadline_more_than_a_minute_is_waited():
    assert isinstance(decide(1, failure("rate_limit", retry_after=300.0), now=0, deadline=1000.0), Wait)


def test_a_wait_that_would_pass_the_deadline_is_not_begun():
    error = failure()
    assert decide(1, error, now=9.9, deadline=10.0, rng=lambda: 1.0) == GiveUp(error)


@given(
    st.integers(1, 5),
    st.sampled_from(["server", "rate_limit", "connection", "auth", "timeout"]),
    st.none() | st.floats(0, 1e6),
    st.none() | st.floats(0, 1e6),
    st.floats(0, 1, exclude_max=True),
)
def test_no_wait_is_shorter_than_asked_or_passes_the_deadline(attempt, kind, asked, left, luck):
    decision = decide(
        attempt,
        failure(kind, retry_after=asked),
        now=50.0,
        deadline=None if left is None else 50.0 + left,
        rng=lambda: luck,
    )
    if isinstance(decision, Wait):
        assert decision.seconds >= (asked or 0)
        assert decision.seconds <= (asked or 0) + 10
        assert left is None or decision.seconds < left
        assert attempt < 4
        assert kind != "auth"


class Flaky:
    """A client that fails some times in the middle of an answer before it gives one."""

    def __init__(self, *failures: ModelError) -> None:
        self.failures = list(failures)

    async def stream(self, request: Request):
        yield TextChunk("half")
        if self.failures:
            raise self.failures.pop(0)
        yield TextChunk(" and half")
        yield End("end_turn")


class Unwatched:
    """A listener for requests that nobody follows."""

    def is_wanted(self) -> bool:
        return False

    def text(self, text: str, attempt: int) -> None:
        raise AssertionError(text)

    def begin(self, attempt: int, assembler: Assembler) -> None:
        pass

    def block(self, block: Block, attempt: int) -> None:
        raise AssertionError(block)

    def announce_retry(self, error: ModelError, wait: float) -> None:
        pass


def test_a_whole_answer_is_asked_for_until_it_comes():
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def main() -> str:
        answer = await ask(Flaky(failure(), failure(retry_after=3.0)), Request([]), Unwatched(), sleep=sleep)
        return answer.item.text

    assert asyncio.run(main()) == "half and half"
    assert len(waits) == 2
    assert waits[1] >= 3.0


def test_a_whole_answer_that_cannot_be_had_raises_the_failure():
    error = failure("auth")
    with pytest.raises(ModelError) as caught:
        asyncio.run(ask(Flaky(error), Request([]), Unwatched()))
    assert caught.value is error


class Odd:
    """A client of the user's own: its blocks, then what it raises; ``aclose`` raises as well."""

    def __init__(self, blocks: Iterable[Block], error: BaseException) -> None:
        self.blocks = iter(blocks)
        self.error = error
        self.closed = False

    def stream(self, request: Request):
        return self

    def __aiter__(self):
        return self

    async def __anext__(self) -> Block:
        for block in self.blocks:
            return block
        raise self.error

    async def aclose(self) -> None:
        self.closed = True
        raise ValueError("it cannot be closed")


def test_an_answer_that_is_whole_stands_whatever_its_client_raises_behind_it():
    client = Odd([TextChunk("whole"), End("end_turn")], ZeroDivisionError("late"))
    answer = asyncio.run(ask(client, Request([]), Unwatched()))
    assert answer.item.text == "whole"
    assert client.closed


def test_why_a_stream_broke_says_more_than_that_it_cannot_be_closed():
    client = Odd([TextChunk("half")], ZeroDivisionError("it broke"))
    with pytest.raises(ZeroDivisionError, match="it broke"):
        asyncio.run(ask(client, Request([]), Unwatched()))
    assert client.closed


def test_a_client_that_never_stops_is_stopped():
    client = Odd(itertools.repeat(TextChunk("x" * (1 << 20))), ZeroDivisionError("never"))
    with pytest.raises(ModelError, match="without stopping"):
        asyncio.run(ask(client, Request([]), Unwatched()))
