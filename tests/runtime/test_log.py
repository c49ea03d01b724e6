"""The log: facts of the bus as lines, at the level that is due, without secrets or conversations."""

import asyncio
import contextlib
import io
import json
import logging
import subprocess
import sys

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from actors.llm.scripted import ScriptedClient, call
from actors.runtime.events.bus import Bus
from actors.runtime.log import fields_of, level_of, log_event
from actors.system import PodSystem
from actors.tools.base import tool
from polypod.log import LOGGED, configure, follow, redact
from protocol.errors import Failure, RunFailed
from protocol.events import (
    DURABLE_EVENTS,
    TRANSIENT_EVENTS,
    Alert,
    ApprovalRequested,
    AssistantMessage,
    CompactFailed,
    PodFailed,
    PodStarted,
    Retry,
    RunEnd,
    TextDelta,
    ToolResulted,
    UserMessage,
)
from protocol.items import AssistantItem, ToolCall, ToolResult, UserItem
from protocol.manifest import PodManifest
from protocol.usage import Usage

HEAD = {"pod": "p", "session_id": "s", "seq": 1, "at": 0.0}
FAILURE = Failure("StoreError", "disk full at postgresql://me:hunter22@db/x", "make room")


@pytest.fixture
def stream():
    """A configured log; the process is as it was afterwards."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers, root.level = before
    for name in ("polypod", "pykka"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.reset_defaults()


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_durable_fact_is_one_line_of_json(stream):
    configure(json=True, stream=stream)
    log_event(PodStarted(**HEAD, model="m"))
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "PodStarted",
        "level": "info",
        "pod": "p",
        "session_id": "s",
        "seq": 1,
        "model": "m",
        "resumed": False,
    }


def test_for_people_a_line_says_the_same_in_words(stream):
    configure(stream=stream)
    log_event(PodStarted(**HEAD, model="m"))
    assert "PodStarted" in stream.getvalue()
    assert "pod=p" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_failures_are_errors_and_say_what_failed_and_what_to_do(stream):
    configure(json=True, stream=stream)
    for event in (PodFailed(**HEAD, error=FAILURE), CompactFailed(**HEAD, error=FAILURE)):
        log_event(event)
    log_event(RunEnd(**HEAD, outcome="failed", error=FAILURE))
    for line in lines(stream):
        assert line["level"] == "error"
        assert (line["error_kind"], line["hint"]) == ("StoreError", "make room")
        assert "disk full" in line["error"]
        assert "hunter22" not in line["error"]


def test_levels_follow_how_things_went():
    assert level_of(RunEnd(**HEAD, outcome="finished")) == "info"
    assert level_of(RunEnd(**HEAD, outcome="cancelled")) == "info"
    assert level_of(RunEnd(**HEAD, outcome="limit_reached")) == "warning"
    assert level_of(Alert(**HEAD, text="torn tail")) == "warning"
    assert level_of(Retry(**HEAD, attempt=1, wait=0.5, error=FAILURE)) == "warning"
    assert level_of(TextDelta(**HEAD, text="x")) is None


def test_every_durable_kind_is_logged_and_of_what_is_only_published_just_the_troubles():
    assert set(DURABLE_EVENTS) <= set(LOGGED)
    assert {kind.__name__ for kind in set(LOGGED) & set(TRANSIENT_EVENTS)} == {"Retry", "StreamRestart"}


def test_the_words_of_a_conversation_stay_out_of_the_log():
    call = ToolCall("1", "read", {"path": "private words"})
    events = [
        UserMessage(**HEAD, item=UserItem.of("private words")),
        AssistantMessage(**HEAD, item=AssistantItem.of("private words", (call,)), usage=Usage(10, 2)),
        ToolResulted(**HEAD, item=ToolResult.of(call, "private words", is_error=True), seconds=0.5),
        ApprovalRequested(**HEAD, approval_id="a", tool="read", arguments={"path": "private words"}),
    ]
    reported = [fields_of(event) for event in events]
    assert "private" not in repr(reported)
    assert reported[0]["chars"] == 13
    assert (reported[1]["calls"], reported[1]["input_tokens"], reported[1]["output_tokens"]) == (
        ["read"],
        10,
        2,
    )
    assert (reported[2]["tool"], reported[2]["is_error"], reported[2]["seconds"]) == ("read", True, 0.5)
    assert reported[3]["tool"] == "read"


def test_the_level_that_was_asked_for_holds_and_a_second_set_up_replaces_the_first(stream):
    configure("error", json=True, stream=io.StringIO())
    configure("warning", json=True, stream=stream)
    log_event(PodStarted(**HEAD, model="m"))
    log_event(Alert(**HEAD, text="x"))
    assert [line["event"] for line in lines(stream)] == ["Alert"]


def test_lines_of_libraries_look_the_same_and_only_their_warnings_are_wanted(stream):
    configure("debug", json=True, stream=stream)
    logging.getLogger("httpx").info("GET https://x/?token=hunter22")
    logging.getLogger("httpx").warning("GET %s", "https://x/?token=hunter22")
    logging.getLogger("pykka").debug("a word of ours")
    first, second = lines(stream)
    assert first["event"] == "GET https://x/?token=[redacted]"
    assert (first["level"], second["level"]) == ("warning", "debug")


def test_a_traceback_is_reported_without_the_secrets_in_it(stream):
    configure(json=True, stream=stream)
    try:
        raise ValueError("password=hunter22")  # noqa: TRY301
    except ValueError:
        logging.getLogger("polypod").exception("it failed")
        structlog.get_logger("polypod").exception("it failed again", headers={"x-api-key": "hunter22"})
    assert "hunter22" not in stream.getvalue()
    assert all("ValueError: password=[redacted]" in line["exception"] for line in lines(stream))


@given(st.sampled_from(["api_key", "authorization", "password", "token"]), st.text(min_size=4), st.booleans())
def test_a_secret_under_its_key_never_reaches_the_log(key, secret, as_json):
    stream = io.StringIO()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    configure(json=as_json, stream=stream)
    try:
        structlog.get_logger("polypod").info("line", nested=[{key: f"<{secret}>"}])
    finally:
        root.handlers, root.level = before
        structlog.reset_defaults()
    assert f"<{secret}>" not in stream.getvalue()
    assert "[redacted]" in stream.getvalue()


def test_the_log_follows_a_subscription_to_its_end(stream):
    async def main():
        bus = Bus()
        bus.loop = asyncio.get_running_loop()
        following = asyncio.ensure_future(follow(bus.subscribe(kinds=LOGGED)))
        bus.publish([PodStarted(**HEAD, model="m")])
        assert TextDelta not in bus.subscribed_kinds("p")[1]
        bus.publish([TextDelta(**HEAD, text="x")])
        bus.close()
        await following

    configure(json=True, stream=stream)
    asyncio.run(main())
    assert [line["event"] for line in lines(stream)] == ["PodStarted"]


def run_and_follow():
    """A run in which a tool fails and says a secret."""

    @tool
    def connect() -> str:
        raise OSError("no route to postgresql://me:hunter22@db/x")

    async def main():
        async with PodSystem() as system:
            following = asyncio.ensure_future(follow(system.subscribe(kinds=LOGGED)))
            model = ScriptedClient(
                [call("connect"), RuntimeError("key sk-abcdefghijklmnopqrstuvwx is refused")]
            )
            pod = await system.spawn(PodManifest.of(name="p"), client=model, tools=[connect])
            with contextlib.suppress(RunFailed):
                await pod.run("My password is hunter22.")
        await following

    asyncio.run(main())


def test_a_run_is_followed_to_the_end_of_its_system(stream):
    configure(json=True, stream=stream)
    run_and_follow()
    reported = lines(stream)
    kinds = [line["event"] for line in reported if "pod" in line]  # a tool's own warning comes when it comes
    assert kinds[:3] == ["PodStarted", "RunStart", "UserMessage"]
    assert {"AssistantMessage", "ToolResulted", "RunEnd", "PodEnded"} <= set(kinds)
    (failed,) = (line for line in reported if line["event"] == "RunEnd")
    assert (failed["level"], failed["outcome"]) == ("error", "failed")
    assert "[redacted]" in failed["error"]
    assert not [secret for secret in ("hunter22", "sk-abcdef") if secret in stream.getvalue()]


def test_a_configuration_of_the_programs_own_takes_secrets_out_with_the_processor(stream):
    structlog.configure(
        processors=[structlog.stdlib.add_log_level, redact, structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    run_and_follow()
    assert [line["level"] for line in lines(stream) if line["event"] == "RunEnd"] == ["error"]
    assert "[redacted]" in stream.getvalue()
    assert "sk-abcdef" not in stream.getvalue()


def test_importing_the_log_does_not_import_structlog():
    program = "import sys, polypod.log; sys.exit('structlog' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
