"""``Exchange``: one model request with all its attempts: reserves, settles and publishes for each."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from actors.compaction.policy import Limits
from actors.compaction.tokens import encoded_size, text_tokens, tokens_in
from actors.llm.base import (
    Answer,
    Assembler,
    Block,
    CallChunk,
    CallStart,
    LLMClient,
    Request,
    ThinkingChunk,
    TierEnded,
)
from actors.llm.retry import RetryPolicy, ask
from actors.pod.accounts.budget import Budget, OverBudget, Reservation, Totals
from protocol.errors import Failure, ModelError, ScriptExhausted
from protocol.events import Retry, StreamRestart, ThinkingDelta, ToolCallDelta
from protocol.items import AssistantItem
from protocol.text import encodable
from protocol.usage import Usage
from protocol.wire import encode

if TYPE_CHECKING:
    from actors.pod.accounts.tiered import TierSpent

#: Failures by which a request was not accepted: it took nothing.
_TOOK_NOTHING = frozenset(
    {
        "auth",
        "billing",
        "connection",
        "context_overflow",
        "invalid_request",
        "not_found",
        "overloaded",
        "rate_limit",
    }
)

#: Publishes a transient event: its kind and its own fields.
Publish = Callable[..., None]
#: Publishes a piece of text with the number of its attempt; a stream is made of these.
PublishText = Callable[[str, int], None]


class Asked(Protocol):
    """The client that is asked, and what its answers cost."""

    @property
    def client(self) -> LLMClient: ...
    @property
    def price(self) -> Callable[[Usage | None], float | None]: ...
    @property
    def totals(self) -> Totals: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def retry(self) -> RetryPolicy: ...


class Payer(Protocol):
    """The client that is asked, and the budget that pays for it."""

    @property
    def budget(self) -> Budget | None: ...
    @property
    def template(self) -> Asked: ...


class FailedAttempt(Struct, frozen=True):
    """An attempt that gave no answer: what it used up (None: nothing), and what was shown of it, marked as
    cut (None: nothing).
    """

    attempt: int
    error: BaseException
    usage: Usage | None
    cost: float | None
    shown: AssistantItem | None

    @property
    def failure(self) -> Failure:
        """Why it failed, as data."""
        return Failure.of(self.error)


def _deaf() -> bool:
    return False


def _silent(*_: object, **__: object) -> None:
    """Publish nothing."""


class Exchange:
    """One request with all its attempts: reserves before each attempt what it may take, and settles
    afterwards what it took.

    ``failed`` holds the attempts that gave no answer. ``prompt_tokens`` gives the size of the request, used
    where the server does not report it. Used on the pod's loop only.
    """

    __slots__ = (
        "_assembler",
        "_attempt",
        "_max_tokens",
        "_prompt_tokens",
        "_publish",
        "_reservation",
        "_resources",
        "_template",
        "failed",
        "is_wanted",
        "text",
    )

    #: Of a client that asks several models: what came of the tier that gave the answer.
    accepted: Sequence[TierSpent] = ()

    def __init__(
        self,
        resources: Payer,
        prompt_tokens: Callable[[], int],
        max_tokens: int | None,
        is_wanted: Callable[[], bool] = _deaf,
        publish: Publish = _silent,
        publish_text: PublishText = _silent,
    ) -> None:
        self._resources = resources
        self._template = resources.template
        self._prompt_tokens = prompt_tokens
        self._max_tokens = max_tokens
        self.is_wanted = is_wanted
        self._publish = publish
        self.text = publish_text
        self._reservation: Reservation | None = None
        self._attempt = 0
        #: Of the attempt under way; None between attempts.
        self._assembler: Assembler | None = None
        self.failed: list[FailedAttempt] = []

    def ask(self, request: Request) -> Coroutine[Any, Any, Answer]:
        """The model's whole answer. Raises OverBudget, or what the client raises."""
        return ask(self._template.client, request, self, self._template.retry)

    # -- the budget ------------------------------------------------------------------------------

    def reserve(self) -> None:
        """Hold back what the next attempt may take, unless that was done. Raises OverBudget."""
        budget = self._resources.budget
        if budget is None or self._reservation is not None:
            return
        price, prompt = self._template.price, self._prompt_tokens()
        answer, perhaps = self._max_tokens, None
        if answer is None:
            answer, unbounded = 0, budget.answer_tokens
            window = self._template.limits.context_window
            if window is not None:
                unbounded = max(0, min(unbounded, window - prompt))
            perhaps = Reservation(unbounded, price(Usage(0, unbounded)) or 0.0)
        tokens, cost = prompt + answer, price(Usage(prompt, answer)) or 0.0
        exceeded = budget.exceeded(tokens, cost, perhaps=perhaps)
        if exceeded is not None:
            raise OverBudget(exceeded)
        if perhaps is not None:
            tokens, cost = tokens + perhaps.tokens, cost + perhaps.cost
        self._reservation = budget.reserve(tokens, cost)

    def _settle(self, usage: Usage | None, output: int) -> float | None:
        """Count what an attempt took, and its cost where that is known. Where an answer's length is not known
        for sure, the budget is charged at least ``output`` tokens.
        """
        resources, held = self._resources, self._reservation
        cost = resources.template.price(usage)
        resources.template.totals.count(usage, cost)
        if held is not None and resources.budget is not None:
            self._reservation = None
            if usage is None or usage.incomplete or usage.input_tokens is None or usage.output_tokens is None:
                usage = taken(usage, self._prompt_tokens, output)
            resources.budget.settle(held, usage, resources.template.price(usage))
        return cost

    # -- its attempts ----------------------------------------------------------------------------

    def begin(self, attempt: int, assembler: Assembler) -> None:
        """Note that an attempt is about to be sent, and reserve for it. Raises OverBudget."""
        # Of the first attempt it was done before the request began.
        if self._reservation is None and self._resources.budget is not None:
            self.reserve()
        self._attempt, self._assembler = attempt, assembler

    def block(self, block: Block, attempt: int) -> None:
        """Publish a block that is not text."""
        assembler = self._assembler
        if assembler is None:
            return
        if isinstance(block, CallChunk | CallStart):
            start = assembler.call_at(block.index)
            text = encodable(block.text) if isinstance(block, CallChunk) else ""
            name = encodable(start.name)
            self._publish(ToolCallDelta, call_id=encodable(start.id), name=name, text=text, attempt=attempt)
        elif isinstance(block, ThinkingChunk) and block.text:
            self._publish(ThinkingDelta, text=encodable(block.text), attempt=attempt)

    def announce_retry(self, error: ModelError, wait: float) -> None:
        """Publish that the attempt failed and another follows; StreamRestart voids what was shown."""
        failed = self._fail(error)
        kind = Retry if failed.shown is None else StreamRestart
        self._publish(kind, attempt=failed.attempt, wait=wait, error=failed.failure)

    async def end_tier(self, ended: TierEnded) -> None:
        """Take the result of a tier. Only clients that announce their tiers are counted by tier, so here
        nothing is.
        """

    def progress(self) -> tuple[object, int, int] | None:
        """The exchange itself, the attempt under way, and how much of it has arrived; None when none is."""
        assembler = self._assembler
        return None if assembler is None else (self, self._attempt, assembler.size)

    def settle_answer(self, answer: Answer) -> float | None:
        """Settle the reservation of a request that was answered; returns what it cost, in US dollars."""
        usage = answer.usage
        assembler, self._assembler = self._assembler, None
        came = 0 if self._reservation is None or assembler is None else tokens_in(assembler.size)
        return self._settle(usage, came)

    def end(self, error: BaseException) -> None:
        """End the request without an answer; nothing more is published of it."""
        self.is_wanted, self.text, self._publish = _deaf, _silent, _silent
        if self._assembler is not None:
            self._fail(error)

    def take_shown(self) -> FailedAttempt | None:
        """The last attempt of which something was shown, removed from ``failed``."""
        for index in range(len(self.failed) - 1, -1, -1):
            if self.failed[index].shown is not None:
                return self.failed.pop(index)
        return None

    def _fail(self, error: BaseException) -> FailedAttempt:
        assembler, self._assembler = self._assembler, None
        assert assembler is not None
        usage, cost = None, None
        if assembler.begun or assembler.usage is not None:
            usage = taken(assembler.usage, self._prompt_tokens, tokens_in(assembler.size))
            cost = self._settle(usage, 0)
        elif took_nothing(error):
            held, self._reservation = self._reservation, None
            if held is not None and self._resources.budget is not None:
                self._resources.budget.settle(held, Usage(0, None), 0.0)
        else:  # it may have been at work all the time: the budget keeps what was held back for it
            usage = taken(None, self._prompt_tokens, 0)
            cost = self._template.price(usage)
            self._settle(usage, self._max_tokens or 0)
        shown = assembler.cut() if assembler.begun else None
        failed = FailedAttempt(self._attempt, error, usage, cost, shown)
        self.failed.append(failed)
        return failed


def took_nothing(error: BaseException) -> bool:
    """Whether a failure before any output means that the server did not accept the request."""
    if isinstance(error, ScriptExhausted):
        return True
    return isinstance(error, ModelError) and error.kind in _TOOK_NOTHING


def taken(reported: Usage | None, prompt_tokens: Callable[[], int], came: int) -> Usage:
    """What a request used up that was cut off after ``came`` tokens of output, given the usage ``reported``
    by then. The result is marked as incomplete where it contains an estimate.
    """
    reported = reported or Usage()
    prompt, output = reported.input_tokens, reported.output_tokens
    if prompt is not None and output is not None and output >= came:
        return reported
    return Usage(
        prompt_tokens() if prompt is None else prompt,
        max(came, output or 0),
        reported.cache_read_tokens,
        reported.cache_write_tokens,
        incomplete=True,
        cache_write_1h_tokens=reported.cache_write_1h_tokens,
    )


def request_tokens(request: Request) -> int:
    """Estimate a request's size in tokens from its bytes."""
    size = sum(map(encoded_size, request.items)) + len(encode(request.tools))
    return tokens_in(size) + text_tokens(request.system or "")
