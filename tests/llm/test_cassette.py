"""What a client answered once is played again, without secrets, and only to the same questions."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from client_kit import answer_from, blocks_from, failure_from
from hypothesis import given
from hypothesis import strategies as st
from llm_server import RawServer, error_reply, stream_reply
from messages_kit import HELLO

from actors import PodManifest, PodSystem
from actors.llm.anthropic.client import AnthropicClient
from actors.llm.base import (
    Assembler,
    Block,
    CallChunk,
    CallEnd,
    CallStart,
    End,
    LLMClient,
    Request,
    TextChunk,
    ThinkingChunk,
    UsageReport,
    VendorChunk,
)
from actors.llm.cassette import CassetteClient
from actors.llm.scripted import Reply, ScriptedClient, call, say
from actors.llm.tape import cleaned_blocks
from actors.runtime.redact import REDACTED
from protocol.errors import ModelError, ScriptExhausted, ScriptLeftover, WireError
from protocol.items import AssistantItem, Item, ToolCall, ToolResult, UserItem
from protocol.tools import ToolSpec
from protocol.usage import Usage

SECRET = "sk-ant-api03-0123456789abcdef"


def ask(*words: str | Item, **fields: Any) -> Request:
    return Request([UserItem.of(each) if isinstance(each, str) else each for each in words], **fields)


def recorded(path: Path, replies: list[Any], *requests: Request) -> list[list[Block]]:
    """Record these requests to a script, and give what was answered."""

    async def main() -> list[list[Block]]:
        script = ScriptedClient(replies)
        async with CassetteClient.record(script, path) as client:
            return [await blocks_from(client, request) for request in requests]

    return asyncio.run(main())


def played(path: Path, *requests: Request) -> list[list[Block]]:
    async def main() -> list[list[Block]]:
        client = CassetteClient.replay(path)
        return [await blocks_from(client, request) for request in requests]

    return asyncio.run(main())


@pytest.fixture
def tape(tmp_path: Path) -> Path:
    return tmp_path / "tape.jsonl"


def test_recording_changes_nothing_and_replaying_gives_the_same_blocks(tape):
    replies = [
        say("Hello there, all of you", thinking="hm", input_tokens=5, output_tokens=3),
        say("I look.") + call("read", {"path": "a"}, id="c1"),
        call("read", '{"path": "a', id="c2"),
    ]
    requests = [
        ask("a"),
        ask("b", tools=(ToolSpec("read", "", {"type": "object"}),)),
        ask("c", temperature=0.5),
    ]
    alone = [asyncio.run(blocks_from(ScriptedClient([reply]), ask("x"))) for reply in replies]
    assert recorded(tape, replies, *requests) == alone
    assert played(tape, *requests) == alone


def test_both_are_clients_with_the_recorded_ones_name(tape):
    recorder = CassetteClient.record(ScriptedClient([]), tape)
    player = CassetteClient.replay(tape)
    assert isinstance(recorder, LLMClient)
    assert isinstance(player, LLMClient)
    assert recorder.model == player.model == "scripted"
    assert str(tape) in repr(recorder)
    assert str(tape) in repr(player)


def test_the_same_question_gets_its_answers_in_their_order(tape):
    recorded(tape, [say("one"), say("two")], ask("a"), ask("a"))
    first, second = played(tape, ask("a"), ask("a"))
    assert (first[0], second[0]) == (TextChunk("one"), TextChunk("two"))


def test_questions_may_come_in_another_order(tape):
    recorded(tape, [say("one"), say("two")], ask("a"), ask("b"))
    second, first = played(tape, ask("b"), ask("a"))
    assert (first[0], second[0]) == (TextChunk("one"), TextChunk("two"))


async def test_an_error_is_recorded_with_all_it_says_and_raised_again(tape):
    error = ModelError(
        "1.2.3.4:80 answered 429: slow down",
        kind="rate_limit",
        hint="wait",
        status=429,
        retry_after=7.0,
        where="1.2.3.4:80",
        retryable=True,
        prompt_tokens=5,
        context_window=4,
    )

    recorder = CassetteClient.record(ScriptedClient([error]), tape)
    assert await failure_from(recorder, ask("a")) is error
    again = await failure_from(CassetteClient.replay(tape), ask("a"))
    assert (str(again), again.kind, again.retryable) == (str(error), error.kind, error.retryable)
    assert again.details() == error.details()


class BreaksOff:
    """Says something, then fails."""

    async def stream(self, request: Request) -> Any:
        yield TextChunk("half")
        raise ModelError("lost", kind="connection")


async def test_an_error_in_the_middle_comes_after_what_was_said_before_it(tape):
    with pytest.raises(ModelError):
        await blocks_from(CassetteClient.record(BreaksOff(), tape), ask("a"))
    stream = CassetteClient.replay(tape).stream(ask("a"))
    assert await anext(stream) == TextChunk("half")
    with pytest.raises(ModelError, match="lost") as caught:
        await anext(stream)
    assert caught.value.kind == "connection"


async def test_an_answer_that_was_broken_off_by_its_reader_can_be_broken_off_again(tape):
    stream = CassetteClient.record(ScriptedClient([say("abcdefghijklmnopqrstuvwxyz")]), tape).stream(ask("a"))
    first = await anext(stream)
    await stream.aclose()
    stream = CassetteClient.replay(tape).stream(ask("a"))
    assert await anext(stream) == first
    with pytest.raises(ModelError, match="cancelled here by its caller"):
        await anext(stream)


def test_a_reader_that_leaves_behind_the_end_has_read_all(tape):
    async def main() -> None:
        stream = CassetteClient.record(ScriptedClient([say("a")]), tape).stream(ask("a"))
        async for block in stream:
            if isinstance(block, End):
                break
        await stream.aclose()

    asyncio.run(main())
    assert played(tape, ask("a")) == [[TextChunk("a"), End("end_turn")]]


async def test_closing_a_recorded_stream_closes_the_one_behind_it(tape):
    closed = asyncio.Event()

    class Endless:
        async def stream(self, request: Request) -> Any:
            try:
                while True:
                    yield TextChunk("a")
            finally:
                closed.set()

    stream = CassetteClient.record(Endless(), tape).stream(ask("a"))
    await anext(stream)
    await stream.aclose()
    assert closed.is_set()


# -- questions that differ -----------------------------------------------------------------------

TOOL = ToolSpec("read", "Reads.", {"type": "object"})
LONG = "x" * 500
HISTORY = ("go", AssistantItem((), (ToolCall("c1", "read", {"path": "a"}),)), ToolResult("c1", "read"))


@pytest.mark.parametrize(
    ("was", "asked", "words"),
    [
        (ask("hello"), ask("hullo"), "items[0].content[0].text: recorded 'hello', asked 'hullo'"),
        (ask("a"), ask("a", "b"), "items: 1 recorded, 2 asked"),
        (ask("a", system="be kind"), ask("a"), "system: recorded 'be kind', asked None"),
        (ask("a", temperature=0.5), ask("a", temperature=1.0), "temperature: recorded 0.5, asked 1.0"),
        (ask("a", tools=(TOOL,)), ask("a"), "tools: 1 recorded, 0 asked"),
        (
            ask(*HISTORY),
            ask(*HISTORY[:1], AssistantItem((), (ToolCall("c1", "read", {"path": "b"}),)), *HISTORY[2:]),
            "items[1].calls[0].arguments.path: recorded 'a', asked 'b'",
        ),
        (
            ask(f"{LONG}a{LONG}"),
            ask(f"{LONG}b{LONG}"),
            f"recorded …'{'x' * 30}a{'x' * 29}'…, asked …'{'x' * 30}b{'x' * 29}'…",
        ),
        (
            ask("a", output_schema={"a": None}),
            ask("a", output_schema={}),
            "output_schema.a: recorded None, asked nothing",
        ),
    ],
)
def test_a_question_that_was_not_recorded_is_refused_with_the_first_difference(tape, was, asked, words):
    recorded(tape, [say("x")], was)

    async def main() -> None:
        error = await failure_from(CassetteClient.replay(tape), asked)
        assert words in error.message
        assert str(tape) in error.message
        assert "number 1" in error.message
        assert (error.kind, error.retryable) == ("invalid_request", False)

    asyncio.run(main())


def test_what_changes_from_run_to_run_makes_no_difference(tape):
    recorded(tape, [say("x")], ask("a", deadline=5.0, scratch={"kept": b"bytes"}))
    assert played(tape, ask("a", deadline=99.0))[0][0] == TextChunk("x")


def test_one_question_too_many_says_so_and_is_never_asked_again(tape):
    recorded(tape, [say("x")], ask("a"))

    async def main() -> None:
        client = CassetteClient.replay(tape)
        await blocks_from(client, ask("a"))
        with pytest.raises(ScriptExhausted, match="has 1 answers, but one more was requested") as caught:
            await blocks_from(client, ask("a"))
        assert not caught.value.retryable

    asyncio.run(main())


def test_answers_that_nobody_asked_for_are_reported(tape):
    recorded(tape, [say("x"), say("y")], ask("a"), ask("b"))

    async def main() -> None:
        client = CassetteClient.replay(tape)
        await blocks_from(client, ask("b"))
        assert client.remaining == 1
        with pytest.raises(ScriptLeftover, match="1 of 2"):
            client.check()
        await blocks_from(client, ask("a"))
        client.check()

    asyncio.run(main())


# -- secrets -------------------------------------------------------------------------------------


def test_secrets_of_questions_and_answers_are_not_in_the_file(tape):
    tool = ToolSpec("read", f"Use {SECRET}.", {"type": "object"})
    request = ask(f"my key is {SECRET}", system=f"key {SECRET}", tools=(tool,))
    pieces = [TextChunk(SECRET[at : at + 3]) for at in range(0, len(SECRET), 3)]
    reply = Reply(
        (
            TextChunk("You said "),
            *pieces,
            ThinkingChunk(f"hm, {SECRET}", 1),
            CallStart(0, "c1", "login"),
            CallChunk(0, '{"password": "hun'),
            CallChunk(0, f'ter2!", "key": "{SECRET}", "n": 1}}'),
            CallEnd(0),
        )
    )
    error = ModelError(f"bad key {SECRET}", kind="auth", hint=f"not {SECRET}")

    async def main() -> None:
        client = CassetteClient.record(ScriptedClient([reply, error]), tape)
        await blocks_from(client, request)
        await failure_from(client, request)

    asyncio.run(main())
    text = tape.read_text()
    assert "0123456789abcdef" not in text
    assert "hunter2" not in text
    assembler = Assembler()
    for block in played(tape, request)[0]:
        assembler.feed(block)
    answer = assembler.answer()
    assert answer.item.text == f"You said {REDACTED}"
    assert answer.item.calls == (ToolCall("c1", "login", {"password": REDACTED, "key": REDACTED, "n": 1}),)


def test_the_key_of_a_real_client_is_not_in_the_file(tape):
    async def main() -> None:
        scripts = stream_reply(HELLO), error_reply("401 Unauthorized", f"invalid x-api-key {SECRET}")
        async with RawServer(*scripts) as server, AnthropicClient(server.url, "claude", SECRET) as inner:
            client = CassetteClient.record(inner, tape)
            assert (await answer_from(client, ask("a"))).usage == Usage(7, 3)
            await failure_from(client, ask("b"))
        again = CassetteClient.replay(tape)
        assert (await answer_from(again, ask("a"))).usage == Usage(7, 3)
        assert (await failure_from(again, ask("b"))).kind == "auth"

    asyncio.run(main())
    assert SECRET not in tape.read_text()


def test_secrets_in_the_data_of_a_vendor_are_not_in_the_file_either(tape):
    data = {"reasoning_details": [{"type": "reasoning.text", "text": f"The key is {SECRET}."}]}
    reply = Reply((TextChunk("ok"), VendorChunk(data)))
    first, second = ask("hi"), ask("hi", AssistantItem.of("ok"), "go on")
    recorded(tape, [reply, say("done")], first, second)
    assert SECRET not in tape.read_text()
    assert VendorChunk in [type(block) for block in played(tape, first, second)[0]]


def test_what_else_is_secret_is_for_the_caller_to_say(tape):
    def redact(text: str) -> str:
        return text.replace("Ada", "N.")

    async def main() -> None:
        client = CassetteClient.record(ScriptedClient([say("Hello Ada")]), tape, redact=redact)
        await blocks_from(client, ask("I am Ada"))
        again = CassetteClient.replay(tape, redact=redact)
        assert (await answer_from(again, ask("I am Ada"))).item.text == "Hello N."

    asyncio.run(main())
    assert "Ada" not in tape.read_text()


_blocks = st.lists(
    st.builds(TextChunk, st.sampled_from(["a", "sk-ant-", "0123456789abcdef", " "]), st.integers(0, 1))
    | st.builds(ThinkingChunk, st.sampled_from(["", "b"]), st.just(2), st.sampled_from([None, "sig"]))
    | st.just(UsageReport(Usage(1)))
)


@given(_blocks)
def test_cleaning_blocks_keeps_all_that_is_no_secret(blocks):
    def texts(of: list[Block]) -> list[str]:
        return [
            "".join(b.text for b in of if isinstance(b, TextChunk) and b.index == index) for index in (0, 1)
        ]

    clean = cleaned_blocks(blocks, lambda text: text.replace("sk-ant-0123456789abcdef", "X"))
    assert texts(clean) == [text.replace("sk-ant-0123456789abcdef", "X") for text in texts(blocks)]
    assert [b for b in clean if not isinstance(b, TextChunk)] == [
        b for b in blocks if not isinstance(b, TextChunk)
    ]


# -- the file ------------------------------------------------------------------------------------


def test_a_growing_history_is_not_written_again_and_again(tape):
    history: list[Item] = []
    requests = []
    for number in range(40):
        history.append(UserItem.of(f"{number} " + "x" * 1000))
        requests.append(Request(list(history), system="s" * 1000))
    recorded(tape, [say("x") for _ in requests], *requests)
    assert tape.stat().st_size < 40 * 1500
    assert len(played(tape, *requests)) == 40


def test_a_file_is_begun_anew_by_the_next_recording(tape):
    recorded(tape, [say("old")], ask("a"))
    recorded(tape, [say("new")], ask("a"))
    assert played(tape, ask("a"))[0][0] == TextChunk("new")


def test_a_cassette_is_json_lines_that_people_can_read(tape):
    recorded(tape, [say("hello")], ask("a\u2028b"))
    header, exchange = [json.loads(line) for line in tape.read_bytes().split(b"\n") if line]
    assert header == {"cassette": 1, "model": "scripted"}
    assert exchange["blocks"][0] == ["TextChunk", {"text": "hello", "index": 0}]
    assert played(tape, ask("a\u2028b"))


def test_half_characters_do_no_harm(tape):
    recorded(tape, [say("a\ud800b")], ask("c\ud800d"))
    assert played(tape, ask("c\ud800d"))[0][0] == TextChunk("a\ufffdb")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b'{"cassette": 9}\n', "of version 9"),
        (b"not json\n", "line 1"),
        (b'{"cassette": 1}\n{"request": {}, "items": [], "blocks": [["Nonsense", {}]]}\n', "line 2"),
        (b'{"cassette": 1}\n{"request": {}}\n', "line 2"),
    ],
)
def test_a_file_that_is_no_cassette_is_refused_with_its_line(tape, data, words):
    tape.write_bytes(data)
    with pytest.raises(WireError, match=words) as caught:
        CassetteClient.replay(tape)
    assert str(tape) in caught.value.message


def test_a_file_that_is_not_there_or_cannot_be_written_is_a_clear_error(tmp_path):
    with pytest.raises(WireError, match="cannot be read: No such file"):
        CassetteClient.replay(tmp_path / "none.jsonl")
    with pytest.raises(WireError, match="cannot be written: No such file"):
        CassetteClient.record(ScriptedClient([]), tmp_path / "none" / "tape.jsonl")


# -- pods ----------------------------------------------------------------------------------------


def test_a_pods_run_is_recorded_and_replayed(tape):
    def word_count(text: str) -> int:
        """Count words."""
        return len(text.split())

    async def run(client: LLMClient) -> str:
        async with PodSystem() as system:
            pod = await system.spawn(PodManifest.of(name="p"), client=client, tools=[word_count])
            return (await pod.run("How many?")).text

    replies = [call("word_count", {"text": "one two"}, id="c1"), say("Two.")]
    assert asyncio.run(run(CassetteClient.record(ScriptedClient(replies), tape))) == "Two."
    player = CassetteClient.replay(tape)
    assert asyncio.run(run(player)) == "Two."
    player.check()
