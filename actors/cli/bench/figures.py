"""What a benchmark of a user's own pods comes to, as data and as lines for people; pure."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct, field

from actors.cli.bench.measuring import Bench, Turn
from actors.cli.bench.timing_client import Asked
from actors.cli.display.format import brief, count, cut, seconds
from actors.net.proxies import without_credentials
from protocol.errors import Failure


class Spread(Struct, frozen=True):
    """The median and the 95th percentile of some times, in seconds."""

    median: float
    p95: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """The spread of some values, None where there are none."""
        if not values:
            return None
        ordered = sorted(values)
        return cls(statistics.median(ordered), ordered[-(-95 * len(ordered) // 100) - 1])


class Share(Struct, frozen=True):
    """What a turn's time goes to, each over all turns that ended well; in seconds.

    ``waiting`` for the model, and where many pods run at once for this process to get to the answer;
    ``client``: sending and decoding (of the embedded model: its thinking); ``tools``; ``runtime``:
    all that polypod does besides, durable store and events included.
    """

    waiting: Spread
    client: Spread
    tools: Spread
    runtime: Spread


class Errors(Struct, frozen=True):
    """Failures of one kind: how many, and the words of the first."""

    kind: str
    count: int
    message: str


class BenchResult(Struct, frozen=True, tag=True):
    """What was measured of a set-up; a number that nobody knows is None.

    ``usage_reported`` says for how many of the ``answers`` the server reported tokens: ``tokens_per_second``
    (of all pods together) and ``stream_tokens_per_second`` (of one answer, from request to end, the
    median) are None unless it did for all. ``cpu_seconds`` is this process's processor time for a turn.
    ``retried`` counts requests that were sent again, by kind of error.
    """

    model: str
    base_url: str | None
    pods: int
    wanted: int
    turns: int
    seconds: float
    interrupted: bool
    timed_out: bool
    turns_per_second: float | None
    turn: Spread | None
    first_token: Spread | None
    share: Share | None
    cpu_seconds: float | None
    answers: int
    usage_reported: int = field(name="usage_told")
    input_tokens: int | None
    output_tokens: int | None
    tokens_per_second: float | None
    stream_tokens_per_second: float | None
    outcomes: dict[str, int]
    errors: list[Errors]
    retried: dict[str, int]


def result_of(bench: Bench, model: str, base_url: str | None) -> BenchResult:
    """All figures of a bench."""
    turns, good = bench.turns, [turn for turn in bench.turns if turn.failure is None]
    asked = [request for turn in turns for request in turn.asked]
    answers = [request for request in asked if request.ended is not None]
    inputs = _known(request.usage.input_tokens if request.usage else None for request in answers)
    outputs = _known(request.usage.output_tokens if request.usage else None for request in answers)
    whole = bool(answers) and len(outputs) == len(answers)
    return BenchResult(
        model=model,
        base_url=without_credentials(base_url) if base_url else base_url,
        pods=min(bench.plan.pods, bench.plan.turns),
        wanted=bench.plan.turns,
        turns=len(turns),
        seconds=bench.seconds,
        interrupted=bench.interrupted,
        timed_out=bench.timed_out,
        turns_per_second=len(good) / bench.seconds if good else None,
        turn=Spread.of([turn.seconds for turn in good]),
        first_token=Spread.of([r.first - r.began for r in answers if r.first is not None]),
        share=_share(good),
        cpu_seconds=bench.cpu / len(turns) if turns else None,
        answers=len(answers),
        usage_reported=len(outputs),
        input_tokens=sum(inputs) if inputs and len(inputs) == len(answers) else None,
        output_tokens=sum(outputs) if whole else None,
        tokens_per_second=sum(outputs) / bench.seconds if whole else None,
        stream_tokens_per_second=_pace(answers) if whole else None,
        outcomes=dict(Counter(turn.outcome for turn in turns)),
        errors=_errors([turn.failure for turn in turns if turn.failure is not None]),
        retried=dict(Counter(r.error for turn in good for r in turn.asked if r.error is not None)),
    )


def _known(values: Iterable[int | None]) -> list[int]:
    return [value for value in values if value is not None]


def _pace(answers: list[Asked]) -> float | None:
    """Tokens a second of one answer, the median."""
    paces = [
        (request.usage.output_tokens or 0) / (request.ended - request.began)
        for request in answers
        if request.usage is not None and request.ended is not None and request.ended > request.began
    ]
    return statistics.median(paces) if paces else None


def _share(turns: list[Turn]) -> Share | None:
    waiting = Spread.of([_in_model(turn)[0] for turn in turns])
    client = Spread.of([_in_model(turn)[1] for turn in turns])
    tools = Spread.of([turn.tools for turn in turns])
    # A memory job's requests may overlap the turn's own: nothing takes less than no time.
    runtime = Spread.of([max(0.0, turn.seconds - sum(_in_model(turn)) - turn.tools) for turn in turns])
    if waiting is None or client is None or tools is None or runtime is None:
        return None
    return Share(waiting, client, tools, runtime)


def _in_model(turn: Turn) -> tuple[float, float]:
    return sum(request.waited for request in turn.asked), sum(request.worked for request in turn.asked)


def _errors(failures: list[Failure]) -> list[Errors]:
    kinds = Counter(map(_kind, failures))
    first = {_kind(failure): str(failure) for failure in reversed(failures)}
    return [Errors(kind, number, first[kind]) for kind, number in kinds.most_common()]


def _kind(failure: Failure) -> str:
    """A model error's classification, any other's class."""
    return str(failure.details.get("kind", failure.kind))


# -- for people ------------------------------------------------------------------------------------


def lines(result: BenchResult) -> Iterator[tuple[str, str]]:
    """What to show: a name and what is to be said of it, row by row."""
    yield from _turn_lines(result)
    yield "tokens", _tokens(result)
    yield from _share_lines(result)
    others = {kind: n for kind, n in result.outcomes.items() if kind not in {"finished", "failed"}}
    if others:
        yield "ended otherwise", ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in others.items())
    if result.retried:
        yield "retried", ", ".join(f"{number} after {kind}" for kind, number in result.retried.items())
    yield "errors", ", ".join(f"{each.count} {each.kind}" for each in result.errors) or "none"
    for each in result.errors:
        yield f"  {each.kind}", cut(each.message, 300)


def heading(result: BenchResult) -> str:
    """What was benched, in a line."""
    where = f" at {result.base_url}" if result.base_url else ""
    done = count(result.turns, "turn")
    until = "it was interrupted" if result.interrupted else "time ran out" if result.timed_out else ""
    part = f", {done} of {result.wanted:,} until {until}" if until else f", {done}"
    return f"{result.model}{where}{part} by {count(result.pods, 'pod')} in {seconds(result.seconds)}"


def _turn_lines(result: BenchResult) -> Iterator[tuple[str, str]]:
    rate = result.turns_per_second
    yield "turns", "none succeeded" if rate is None else f"{_rate(rate)}/s"
    yield "a turn", _spread(result.turn)
    yield "first token after", _spread(result.first_token)


def _tokens(result: BenchResult) -> str:
    if result.tokens_per_second is None or result.stream_tokens_per_second is None:
        reported = "none" if not result.usage_reported else f"{result.usage_reported}"
        return f"unknown: the server reported the usage of {reported} of {count(result.answers, 'answer')}"
    inp = "?" if result.input_tokens is None else f"{result.input_tokens:,}"
    return (
        f"{_rate(result.tokens_per_second)}/s in total, "
        f"{_rate(result.stream_tokens_per_second)}/s per answer ({inp} in, "
        f"{result.output_tokens:,} out)"
    )


def _share_lines(result: BenchResult) -> Iterator[tuple[str, str]]:
    share = result.share
    if share is None or result.cpu_seconds is None:
        return
    yield "of a turn", ""
    yield "  model", f"{_spread(share.waiting)} waiting for it"
    yield "  client", f"{_spread(share.client)} sending and decoding"
    if share.tools.p95:
        yield "  tools", _spread(share.tools)
    yield "  polypod", f"{_spread(share.runtime)} everything else"
    yield "processor", f"{brief(result.cpu_seconds)} per turn, in this process"


def _spread(spread: Spread | None) -> str:
    return "-" if spread is None else f"{brief(spread.median)} median, {brief(spread.p95)} p95"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"
