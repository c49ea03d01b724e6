"""The offline model does plain tasks with real tools, says what it is, and keeps nothing in itself."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from effort import times
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.llm.base import Answer, Assembler, CallChunk, End, LLMClient, Request, TextChunk, UsageReport
from actors.llm.offline.client import OfflineClient, current
from actors.tools.base import ToolContext, tool
from actors.tools.builtin import builtin
from actors.tools.toolbox import Toolbox
from protocol.items import AssistantItem, Item, SystemItem, ToolCall, ToolResult, UserItem
from protocol.scope import Scope

BUILTIN = Toolbox(builtin(["files", "search"]))
EMPTY = Toolbox()


def answered(items: list[Item], toolbox: Toolbox = EMPTY, **request: Any) -> Answer:
    async def main() -> Answer:
        assembler = Assembler()
        async for block in OfflineClient().stream(Request(items=items, tools=toolbox.specs, **request)):
            assert not assembler.ended, "nothing comes after the end"
            assembler.feed(block)
        return assembler.answer()

    return asyncio.run(main())


class Loop:
    """A pod in ten lines: asks the model, runs its calls, and keeps the history."""

    def __init__(self, pwd: Path, toolbox: Toolbox = BUILTIN, **request: Any) -> None:
        self.pwd, self.toolbox, self.request = pwd, toolbox, request
        self.items: list[Item] = []
        self.called: list[str] = []

    def run(self, text: str | None = None, *, most: int = 40) -> str:
        if text is not None:
            self.items.append(UserItem.of(text))
        for _ in range(most):
            answer = answered(self.items, self.toolbox, **self.request)
            self.items.append(answer.item)
            if not answer.item.calls:
                return answer.item.text
            self.call(answer.item.calls)
        raise AssertionError("it does not end")

    def call(self, calls: tuple[ToolCall, ...]) -> None:
        self.called += [call.name for call in calls]

        async def results() -> list[Item]:
            ctx = ToolContext(pwd=self.pwd, scope=Scope.writable(self.pwd))
            return [await self.toolbox.run(call, ctx) for call in calls]

        self.items += asyncio.run(results())


@pytest.fixture
def loop(tmp_path):
    (tmp_path / "README.md").write_text(
        "# Title\n\nPods are actors. Actors have mailboxes. Mailboxes keep order.\n"
    )
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "app.py").write_text("def main():\n    pass  # TODO: all\n")
    return Loop(tmp_path)


def test_it_is_a_model_client():
    assert isinstance(OfflineClient(), LLMClient)
    assert OfflineClient().model == "offline"


@pytest.mark.parametrize(
    ("request_", "answer", "called"),
    [
        ("List files", "The working directory holds:\nsrc/\nREADME.md (71 bytes)", ["list_files"]),
        ("what is in src?", "src holds:\napp.py (34 bytes)", ["list_files"]),
        (
            "read the file src/app.py, please",
            "src/app.py says:\n\ndef main():\n    pass  # TODO: all",
            ["read_file"],
        ),
        ("show me the first 1 lines of README.md", "README.md begins with:\n\n# Title", ["read_file"]),
        ("How many words are in README.md?", "README.md has 11 words.", ["count_words"]),
        ("count the lines of README.md", "README.md has 3 lines.", ["count_words"]),
        ("find all python files", "I found 1 name that fits *.py:\nsrc/app.py", ["find_files"]),
        (
            "search for TODO in src",
            "I found 1 line with “TODO” in src:\napp.py:2:     pass  # TODO: all",
            ["grep"],
        ),
        ("grep for ^def", "I found 1 line with “^def”:\nsrc/app.py:1: def main():", ["grep"]),
        ("search for ^def", "I found no line with “^def”.", ["grep"]),
        ("find *.rs", "I found no name that fits *.rs.", ["find_files"]),
        (
            "find TODO",
            "I found no name that fits *TODO*, so I looked into the files. I found 1 line with “TODO”:\nsrc/app.py:2:     pass  # TODO: all",
            ["find_files", "grep"],
        ),
        (
            "read nothing.txt",
            "I could not read nothing.txt: {pwd}/nothing.txt: there is no such file or directory",
            ["read_file"],
        ),
        ('write "hello" to a/b.txt', "Done: wrote 6 bytes to a/b.txt (a new file).", ["write_file"]),
        ("count words in all markdown files", "README.md has 11 words.", ["find_files", "count_words"]),
        ("read all toml files", "I found no file that fits **/*.toml.", ["find_files"]),
        (
            "find x in missing",
            "I could not look for *x* in missing: {pwd}/missing: there is no such file or directory",
            ["find_files"],
        ),
    ],
)
def test_a_plain_request_becomes_calls_and_an_answer_from_their_results(loop, request_, answer, called):
    assert loop.run(request_) == answer.format(pwd=loop.pwd)
    assert loop.called == called


def test_several_requests_are_done_one_after_another_and_answered_together(loop):
    text = loop.run("1. list files\n2. count words in README.md\n3. find *.py in src")
    assert loop.called == ["list_files", "count_words", "find_files"]
    assert "holds:" in text
    assert "README.md has 11 words." in text
    assert "I found 1 name that fits *.py in src:\napp.py" in text


def test_a_later_request_can_mean_what_an_earlier_one_came_to(loop):
    text = loop.run("summarise README.md, then write it to out.txt and then count words in it")
    summary = "Pods are actors. Actors have mailboxes. Mailboxes keep order."
    assert (loop.pwd / "out.txt").read_text() == f"{summary}\n"
    assert text.endswith("out.txt has 9 words.")
    assert loop.called == ["read_file", "write_file", "count_words"]


def test_the_answer_before_can_be_written_in_a_later_run(loop):
    loop.run("count words in README.md")
    loop.run("write it to count.txt")
    assert (loop.pwd / "count.txt").read_text() == "README.md has 11 words.\n"


def test_facts_are_remembered_in_a_file_and_reported_again(loop):
    assert loop.run("Remember that tea is at five.") == "I noted in memory.md: tea is at five"
    assert loop.run("remember: the key is under the mat") == "I noted in memory.md: the key is under the mat"
    assert loop.run("remember that tea is at five") == "I noted in memory.md: tea is at five"
    assert (loop.pwd / "memory.md").read_text() == "- tea is at five\n- the key is under the mat\n"
    assert loop.run("what do you remember about the key?") == "From my notes:\n- the key is under the mat"
    assert loop.run("what do you remember?").endswith("- tea is at five\n- the key is under the mat")
    assert loop.run("what do you remember about cats") == "There is nothing about cats in memory.md."


def test_a_text_is_replaced_and_appended(loop):
    assert loop.run('replace "TODO" with "DONE" in src/app.py').startswith(
        "Done: edited src/app.py in 1 place"
    )
    assert "DONE: all" in (loop.pwd / "src" / "app.py").read_text()
    loop.run("append end to src/app.py")
    assert (loop.pwd / "src" / "app.py").read_text().endswith("all\nend\n")
    assert loop.run("replace none with some in src/app.py").startswith(
        "I could not edit src/app.py: the text does not occur"
    )


def test_a_long_file_is_read_page_by_page(loop):
    (loop.pwd / "long.txt").write_text("Many words make a line here.\n" * 3000)
    loop.run("summarise long.txt")
    assert loop.called == ["read_file"] * 6


def test_many_lines_behind_a_request_are_its_text(loop):
    loop.run("Please write the following to notes.md:\n- then read x\n- and list files\n")
    assert (loop.pwd / "notes.md").read_text() == "- then read x\n- and list files\n"
    assert loop.run("Summarise this:\nOne thing is true. Another thing is false.").endswith(
        "One thing is true. Another thing is false."
    )


@pytest.mark.parametrize("text", ["who are you?", "help", "Are you an AI?", "what can you do"])
def test_it_says_what_it_is_when_asked(loop, text):
    answer = loop.run(text)
    assert "I am polypod's offline model: a small deterministic program, not a language model" in answer
    assert "This pod's tools: read_file, list_files" in answer
    assert "use TOOL name=value, for any other tool" in answer
    assert re.search(r"Any is called by its name: use \w+ \w+=…", answer)


def test_what_it_does_not_understand_it_says_and_what_it_is(loop):
    answer = loop.run("Write me a poem about the sea")
    assert answer.startswith(
        "I do not understand “Write me a poem about the sea”. I am polypod's offline model"
    )
    assert loop.called == []
    assert loop.run("list src; sing; thanks").endswith("I do not understand “sing”.\n\nYou are welcome.")


def test_a_tool_that_is_missing_is_named():
    answer = Loop(Path("/")).__class__(Path("/"), Toolbox(builtin(["grep"]))).run("read a.txt")
    assert answer.startswith(
        "For that I would need the tool read_file, which this pod does not have (its tools: grep)."
    )
    assert "builtin =" in answer


def test_without_tools_it_says_that_there_are_none():
    assert "which this pod does not have (its tools: none)" in answered([UserItem.of("list files")]).item.text
    assert "This pod has no tools" in answered([UserItem.of("help")]).item.text


def word_count(path: str, least: int = 1) -> str:
    """Count."""
    return f"{path} {least}"


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ("use word_count on README.md", "word_count answered: README.md 1"),
        ('call the tool word_count with {"path": "a b", "least": 2}', "word_count answered: a b 2"),
        ("word_count path=x least=3", "word_count answered: x 3"),
        ("call word_count", "I do not understand what to call word_count with."),
        ("call word_count with {broken", "I do not understand what to call word_count with."),
        (
            "word_count path=x least=many",
            "word_count failed: invalid arguments for word_count: least: expected `int`",
        ),
    ],
)
def test_a_users_own_tool_is_called_by_its_name(tmp_path, request_, answer):
    assert Loop(tmp_path, Toolbox([word_count])).run(request_).startswith(answer)


def test_the_scope_holds_for_it_as_for_any_model(loop):
    answer = loop.run("read ../secret")
    assert answer.startswith("I could not read ../secret: not allowed to read '../secret'")


def interrupted(call: ToolCall) -> ToolResult:
    return ToolResult.of(call, "interrupted, outcome unknown: check before calling it again", is_error=True)


def stopped_in_call(loop: Loop, text: str, *, after: int = 0) -> ToolCall:
    """Run until a call is wanted that nobody lets end."""
    loop.items.append(UserItem.of(text))
    for _ in range(after + 1):
        item = answered(loop.items, loop.toolbox).item
        loop.items.append(item)
        if _ < after:
            loop.call(item.calls)
    (call,) = item.calls
    return call


def test_an_interrupted_reading_is_done_again_after_a_resume(loop):
    call = stopped_in_call(loop, "list files then count words in README.md", after=1)
    loop.items.append(interrupted(call))
    assert loop.run().endswith("README.md has 11 words.")
    assert loop.called == ["list_files", "count_words"]


def test_a_reading_that_is_interrupted_each_time_is_given_up(loop):
    call = stopped_in_call(loop, "count words in README.md")
    for _ in range(4):
        loop.items.append(interrupted(call))
        item = answered(loop.items, loop.toolbox).item
        loop.items.append(item)
        (call,) = item.calls
    loop.items.append(interrupted(call))
    assert loop.run().startswith("I could not count the words of README.md: interrupted")


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ("list missing", "I could not list missing: {pwd}/missing: there is no such file or directory"),
        (
            "summarise missing.md",
            "I could not read missing.md: {pwd}/missing.md: there is no such file or directory",
        ),
        (
            "search for x in missing",
            "I could not search for “x” in missing: {pwd}/missing: there is no such file",
        ),
        (
            "count words in missing",
            "I could not count the words of missing: {pwd}/missing: there is no such file",
        ),
        (
            "count words in missing/*.md",
            "I could not look for missing/*.md: {pwd}/missing: there is no such file",
        ),
        ("count words in all rust files", "I found no file that fits **/*.rs."),
        ("what do you remember", "I have no notes: {pwd}/memory.md: there is no such file or directory"),
        ("write it to x.txt", "There is nothing yet that I could write to x.txt."),
        ("summarise our conversation", "There are no sentences in what was said that I could choose from."),
        ("continue", "All that I was asked before is done."),
        ("write x to src", "I could not write to src: {pwd}/src: it is a directory"),
        ("remember that", "I do not understand “remember that”."),
        ("read empty/", "I could not read empty/: {pwd}/empty: there is no such file or directory"),
    ],
)
def test_what_cannot_be_done_is_reported_with_the_reason(loop, request_, answer):
    assert loop.run(request_).startswith(answer.format(pwd=loop.pwd))


def test_files_that_fit_a_glob_are_done_one_after_another_and_together(loop):
    (loop.pwd / "src" / "b.py").write_text("one two three")
    assert loop.run("count words in src/*.py") == (
        "src/app.py has 6 words.\nsrc/b.py has 3 words.\nTogether they have 9 words."
    )
    assert loop.run("read src/*.py").count(" says:\n\n") == 2
    assert "The most important sentences of src/b.py:" in loop.run("summarise all python files in src")


def test_a_note_is_not_claimed_where_it_could_not_be_written(tmp_path):
    (tmp_path / "memory.md").mkdir()
    assert Loop(tmp_path).run("remember that x").startswith("I could not note that in memory.md: ")
    only_write = Loop(tmp_path / "..", Toolbox(builtin(["write_file"])))
    only_write.pwd = tmp_path / "sub"
    only_write.pwd.mkdir()
    assert only_write.run("remember that x is y") == "I noted in memory.md: x is y"


def test_a_conversation_is_summarised_from_what_was_said_before(loop):
    loop.run("Summarise this: Pods are small. Pods are many.")
    assert "Pods are small." in loop.run("summarise our conversation")


def test_a_tool_that_says_nothing_is_done(tmp_path):
    def ping() -> None:
        """Do nothing."""

    assert Loop(tmp_path, Toolbox([ping])).run("call ping") == "ping is done."


def test_a_call_that_never_began_is_made_again(loop):
    call = stopped_in_call(loop, "append x to a.txt")
    loop.items.append(
        ToolResult.of(call, "not run: the run ended before this call was started", is_error=True)
    )
    assert loop.run() == "Done: added 2 bytes to a.txt."


def test_an_appending_that_was_interrupted_is_not_doubled(loop):
    call = stopped_in_call(loop, "append x to a.txt")
    loop.items.append(interrupted(call))
    assert loop.run().startswith("I could not write to a.txt: interrupted, outcome unknown")


@pytest.mark.parametrize("it_was_written", [True, False])
def test_an_interrupted_note_is_looked_after_and_never_doubled(loop, it_was_written):
    call = stopped_in_call(loop, "remember that tea is at five", after=1)
    if it_was_written:
        (loop.pwd / "memory.md").write_text("- tea is at five\n")
    loop.items.append(interrupted(call))
    assert loop.run() == "I noted in memory.md: tea is at five"
    assert (loop.pwd / "memory.md").read_text() == "- tea is at five\n"


def test_what_was_interrupted_is_let_be_when_the_user_says_something_new(loop):
    call = stopped_in_call(loop, "count words in README.md")
    loop.items.append(interrupted(call))
    assert loop.run("list src") == "src holds:\napp.py (34 bytes)"


def test_a_run_that_is_steered_does_both(loop):
    call = stopped_in_call(loop, "count words in README.md")
    loop.call((call,))
    answer = loop.run("also list src")
    assert answer == "README.md has 11 words.\n\nsrc holds:\napp.py (34 bytes)"
    assert loop.called == ["count_words", "list_files"]


def test_where_a_compaction_took_the_request_its_summary_has_it(loop):
    summary = "[Compacted context summary]\n## Active Task\n- Open request: list src\n\n## Current Work\n- x"
    loop.items.append(SystemItem.of(summary))
    assert loop.run() == "src holds:\napp.py (34 bytes)"


def test_with_nothing_asked_it_says_so():
    assert answered([]).item.text == "Nothing is asked of me."
    assert answered([UserItem.of("list"), AssistantItem.of("done")]).item.text == "Nothing is asked of me."


def test_the_current_run_begins_after_the_last_answer_without_calls():
    call = ToolCall("c", "list_files")
    result = ToolResult.of(call, "x")
    items = [
        *(UserItem.of("old"), AssistantItem.of("answer")),
        *(UserItem.of("new"), AssistantItem.of("", (call,)), result),
    ]
    assert current(items) == (2, ["new"], [(call, result)])


@tool(name="write_summary")
def refuse_long(text: str) -> str:
    """Take the summary."""
    if len(text) > 700:
        raise ValueError("too long")
    return "taken"


def long_history(turns: int) -> list[Item]:
    items: list[Item] = []
    for n in range(turns):
        call = ToolCall(f"c{n}", "read_file", {"path": f"f{n}.md"})
        items += [
            UserItem.of(f"Please read f{n}.md and never touch the file secrets-{n}.txt."),
            AssistantItem.of("", (call,)),
            ToolResult.of(call, f"content {n} " * 30),
            AssistantItem.of(f"I read f{n}.md. We decided to use SQLite because it is one file."),
        ]
    return items


def test_asked_to_compact_it_writes_a_summary_by_the_tool_and_closes():
    taken: list[str] = []

    def write_summary(text: str) -> str:
        """Take the summary."""
        taken.append(text)
        return "ok"

    loop = Loop(Path("/"), Toolbox([write_summary]), system="Summarise the conversation for later.")
    loop.items = long_history(10)
    assert loop.run("Write the summary now.") == "The summary is written."
    (text,) = taken
    for heading in ("User Directives", "Completed Tasks", "Key Decisions", "Current Work"):
        assert f"## {heading}" in text
    assert "never touch the file secrets-9.txt" in text
    assert "read_file path=f9.md: content 9" in text
    assert "We decided to use SQLite" in text
    assert len(text) < sum(len(item.text) for item in loop.items) / 3


def test_a_transcript_in_the_request_itself_is_what_is_summarised():
    loop = Loop(Path("/"), Toolbox([refuse_long]))
    text = "Summarise this transcript.\n\nuser: Build the parser.\nassistant: I decided to use regexes.\nIt works.\n"
    assert loop.run(text) == "The summary is written."
    written = loop.items[1].calls[0].arguments["text"]
    assert "Build the parser." in written
    assert "Summarise this transcript" not in written


def test_a_summary_that_is_refused_is_made_shorter_once():
    loop = Loop(Path("/"), Toolbox([refuse_long]), system="You write summaries.")
    loop.items = long_history(40)
    assert loop.run("Go.") == "The summary is written."
    assert loop.called == ["write_summary", "write_summary"]


def test_a_tool_of_that_name_alone_does_not_make_it_a_summariser():
    loop = Loop(Path("/"), Toolbox([refuse_long]))
    assert loop.run("hello").startswith("Hello.")


def test_asked_to_extract_it_writes_the_facts_it_finds():
    taken: list[dict[str, Any]] = []

    def write_extracted(
        decisions: list[dict[str, Any]], discussions: list[Any], attempts: list[Any], requests: list[Any]
    ) -> str:
        """Take the facts."""
        taken.append(
            {"decisions": decisions, "discussions": discussions, "attempts": attempts, "requests": requests}
        )
        return "ok"

    loop = Loop(Path("/"), Toolbox([write_extracted]))
    loop.items = [*long_history(1), UserItem.of("Which port is it?"), AssistantItem.of("It is 8080.")]
    assert loop.run("Extract.") == "5 facts are written down."
    (facts,) = taken
    assert facts["decisions"][0]["rationale"] == "because it is one file."
    assert facts["discussions"] == [{"topic": "Which port is it?", "points": ["It is 8080."]}]
    assert facts["attempts"][0]["action"] == "read_file path=f0.md"
    assert facts["attempts"][0]["succeeded"] is True
    assert facts["requests"][0]["target"] == "f0.md"


def test_asked_to_consolidate_it_writes_a_note_for_each_finding():
    taken: list[tuple[str, str, str]] = []

    def write_memory(kind: str, title: str, text: str) -> str:
        """Take a note."""
        taken.append((kind, title, text))
        return title

    found = (
        "From s1:0-2:\n[decisions] Use tabs\n- tabs\n  Why: taste\n\nFrom s2:0-4:\n[knowledge] Build\n- slow"
    )
    loop = Loop(Path("/"), Toolbox([write_memory]))
    asked = f"<findings>\n{found}\n</findings>\n\n<notes>\n[none yet]\n</notes>"
    assert loop.run(asked) == "2 of 2 findings are worked in."
    assert taken == [("decisions", "Use tabs", "- tabs\n  Why: taste"), ("knowledge", "Build", "- slow")]


def test_facts_are_shaped_as_the_tool_wants_them():
    def write_extracted(decisions: list[str], requests: list[str]) -> str:
        """Take the facts."""
        return "ok"

    loop = Loop(Path("/"), Toolbox([write_extracted]))
    loop.items = long_history(1)
    loop.run("Extract.")
    arguments = loop.items[-3].calls[0].arguments
    assert set(arguments) == {"decisions", "requests"}
    assert arguments["requests"] == ["Please read f0.md and never touch the file secrets-0.txt."]


def test_text_comes_word_by_word_and_the_usage_before_the_one_end():
    async def main() -> list[Any]:
        request = Request(items=[UserItem.of("hello")])
        return [block async for block in OfflineClient().stream(request)]

    *chunks, usage, end = asyncio.run(main())
    assert all(isinstance(chunk, TextChunk) and len(chunk.text.split()) == 1 for chunk in chunks)
    assert isinstance(usage, UsageReport)
    text = "".join(chunk.text for chunk in chunks)
    assert usage.usage.output_tokens == -(-len(text.encode()) // 4)
    assert usage.usage.input_tokens == 2
    assert end == End("end_turn", "offline")


def test_others_run_between_two_words():
    async def main() -> int:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        count = 0
        async for _ in OfflineClient().stream(Request(items=[UserItem.of("hello")])):
            count += 1
        task.cancel()
        assert turns >= count - 3
        return count

    assert asyncio.run(main()) > 20


def test_a_bound_on_its_answer_cuts_it_and_says_so(loop):
    cut = answered([UserItem.of("help")], max_tokens=10)
    assert cut.stop_reason == "max_tokens"
    assert len(cut.item.text.encode()) <= 40
    call = answered([UserItem.of('write "' + "x" * 400 + '" to a')], BUILTIN, max_tokens=20)
    assert call.stop_reason == "max_tokens"
    assert call.item.calls[0].invalid is not None


def test_the_same_request_is_answered_the_same_way_with_the_same_call_id():
    first, second = (answered([UserItem.of("list files")], BUILTIN) for _ in range(2))
    assert first == second
    assert first.stop_reason == "tool_use"


def test_a_huge_history_is_thought_about_off_the_loop():
    items = [UserItem.of("word " * 20_000), AssistantItem.of("ok"), UserItem.of("hello")]
    assert answered(items).item.text.startswith("Hello.")


REQUESTS = st.lists(
    st.sampled_from(
        [
            *(
                "list files",
                "read README.md",
                "read missing.md",
                "count words in README.md",
                "find *.md",
                "find zz",
            ),
            *("search for actors", "remember that x is y", "what do you remember?", "summarise README.md"),
            *(
                "write it to out.txt",
                'write "a" to b.txt',
                "append b to b.txt",
                'replace "a" with "b" in b.txt',
            ),
            *("sing", "thanks", "count words in all markdown files", "read it"),
        ]
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=times(10))
@given(REQUESTS)
def test_any_mixture_of_requests_ends_with_an_answer(tmp_path_factory, requests):
    pwd = tmp_path_factory.mktemp("pod")
    (pwd / "README.md").write_text("Pods are actors.\n")
    loop = Loop(pwd)
    answer = loop.run("\n".join(requests))
    assert answer
    ids = [call.id for item in loop.items if isinstance(item, AssistantItem) for call in item.calls]
    assert len(ids) == len(set(ids))


@given(st.text(max_size=300), st.integers(1, 100))
def test_whatever_it_is_sent_it_ends_its_answer_once(text, max_tokens):
    async def main() -> None:
        request = Request(items=[UserItem.of(text)], tools=BUILTIN.specs, max_tokens=max_tokens)
        blocks = [block async for block in OfflineClient().stream(request)]
        assert [type(block) for block in blocks].count(End) == 1
        assert isinstance(blocks[-1], End)
        written = sum(len(b.text.encode()) for b in blocks if isinstance(b, TextChunk | CallChunk))
        assert written <= max_tokens * 4

    asyncio.run(main())
