"""The demonstration: it ends well, and would not if something were lost or run twice."""

from pathlib import Path
from typing import Any

import pytest
from command_kit import Home

from actors.cli import demo
from protocol.events import AssistantMessage, RunEnd, ToolResulted, ToolStart
from protocol.items import AssistantItem, ToolCall, ToolResult
from protocol.results import RunResult
from protocol.usage import Usage

WHERE: dict[str, Any] = {"pod": "demo", "session_id": "s", "at": 0.0, "run_id": "r"}
FIRST, SLOW, AGAIN = (
    ToolCall(str(n), "count_words", {"path": path})
    for n, path in enumerate(["poem.txt", demo.SLOW, demo.SLOW])
)
EXPECTED = {"poem.txt": 4000, demo.SLOW: 18_000_000}


@pytest.mark.slow
def test_the_demonstration_ends_well_and_leaves_nothing_behind(tmp_path: Path):
    home = Home(tmp_path)
    home.env["TMPDIR"] = str(home.folder)
    done = home.polypod("demo")
    assert done.code == 0, done
    assert done.out.count("✓ ") >= 6 + 4
    assert "SIGKILL" in done.out
    assert not list(home.folder.iterdir())


def asked(seq: int, call: ToolCall) -> AssistantMessage:
    return AssistantMessage(**WHERE, seq=seq, item=AssistantItem((), (call,)))


def answered(seq: int, call: ToolCall, text: str = "x", *, is_error: bool = False) -> ToolResulted:
    return ToolResulted(**WHERE, seq=seq, item=ToolResult.of(call, text, is_error=is_error))


def played(*calls: ToolCall, text: str | None = None) -> demo.Played:
    reported = [
        ToolStart(**WHERE, seq=1, call_id=call.id, name=call.name, arguments=call.arguments) for call in calls
    ]
    result = None if text is None else RunResult(text, "finished", Usage(), "r", "s")
    return demo.Played(reported, result)


LEFT = [asked(1, FIRST), answered(2, FIRST), asked(3, SLOW)]
LOG = [
    *LEFT,
    answered(4, SLOW, is_error=True),
    asked(5, AGAIN),
    answered(6, AGAIN),
    RunEnd(**WHERE, seq=7, outcome="finished"),
]
BEFORE = played(FIRST, SLOW)
AFTER = played(AGAIN, text="poem.txt has 4,000 words. logbook.txt has 18,000,000 words.")


def failing(left: list[Any] = LEFT, after: demo.Played = AFTER, log: list[Any] = LOG) -> list[str]:
    return [point for point, holds in demo.points(EXPECTED, BEFORE, left, after, log).items() if not holds]


def test_what_went_as_it_must_has_no_point_against_it():
    assert failing() == []


@pytest.mark.parametrize(
    ("changed", "point"),
    [
        ({"left": [*LEFT, answered(4, SLOW)], "log": [*LEFT, answered(4, SLOW), *LOG[4:]]}, "it was killed while"),
        ({"log": LOG[1:]}, "still in the log"),
        ({"log": [*LOG, answered(8, SLOW)]}, "exactly one result"),
        ({"log": [*LEFT, *LOG[4:]]}, "exactly one result"),
        ({"after": played(SLOW, AGAIN, text=AFTER.result.text)}, "run again"),
        ({"after": played(ToolCall("9", "count_words", {"path": "poem.txt"}), text=AFTER.result.text)}, "run again"),
        ({"after": played(AGAIN, text="poem.txt has 4,000 words.")}, "right answer"),
        ({"after": played(AGAIN)}, "right answer"),
    ],
)  # fmt: skip
def test_each_thing_that_may_go_wrong_has_its_point(changed: dict[str, Any], point: str):
    assert any(point in against for against in failing(**changed))
