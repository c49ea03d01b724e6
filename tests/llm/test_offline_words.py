"""What the offline model understands, and what it chooses from texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.llm.offline.call_plans import arguments_from
from actors.llm.offline.extractive import (
    COMPACTED,
    Said,
    compacted,
    facts,
    said_in_text,
    sentences,
    summary,
)
from actors.llm.offline.intents import (
    Count,
    Find,
    List,
    PassOn,
    Read,
    Recall,
    Remember,
    Replace,
    Search,
    Summarise,
    SummariseText,
    Talk,
    Unknown,
    UseTool,
    Write,
)
from actors.llm.offline.phrases import understood
from actors.llm.offline.rules import sentence


@pytest.mark.parametrize(
    ("text", "intents"),
    [
        ("ls", [List(".")]),
        ("Can you list the files in the folder src, please?", [List("src")]),
        ("list files in ..", [List("..")]),
        ("what's in this directory?", [List(".")]),
        ("show me what files are there", [List(".")]),
        ("Could you please read the file README.md for me?", [Read("README.md")]),
        ("cat a.txt and b.txt", [Read("a.txt"), Read("b.txt")]),
        ('show me the first 10 lines of "my file.txt"', [Read("my file.txt", 10)]),
        ("what does README.md say?", [Read("README.md")]),
        ("read a.md and tell me how many words it has", [Read("a.md"), Count("a.md")]),
        ("how long is README.md", [Count("README.md")]),
        ("count the lines of a.md, b.md and c.md", [Count(f"{x}.md", "lines") for x in "abc"]),
        ("count words in every yaml file in docs", [Count("docs/**/*.{yaml,yml}")]),
        ("how many bytes does a.bin have", [Count("a.bin", "bytes")]),
        ("how many python files are there in src?", [Find("*.py", "src", "python files")]),
        ("where is config.toml?", [Find("config.toml", ".", "config.toml")]),
        ("find files ending in .rs below src", [Find("*.rs", "src", "files ending in .rs")]),
        ("find files named setup", [Find("*setup*", ".", "files named setup")]),
        ("find TODO in app.py", [Search("TODO", "app.py")]),
        ("grep for def .*main in src", [Search("def .*main", "src", is_regex=True)]),
        ("grep (", [Search("(", ".")]),
        ("search src for hello world", [Search("hello world", "src")]),
        ("which files mention “the end”?", [Search("the end", ".")]),
        ("find lines containing foo in a.py", [Search("foo", "a.py")]),
        ("remember that we write and use tests, then ls", [Remember("we write and use tests"), List(".")]),
        ("Don\u2019t forget to call home.", [Remember("call home")]),
        ("note down: buy milk", [Remember("buy milk")]),
        ("recall the key", [Recall("the key")]),
        ("summarize a.md to b.md", [Summarise("a.md"), Write("b.md", None)]),
        ("write a short summary of a.md to b.md", [Summarise("a.md"), Write("b.md", None)]),
        ("summarise our conversation so far", [SummariseText()]),
        ("give me a summary of a.md", [Summarise("a.md")]),
        ('write "x; then read y" to a.txt', [Write("a.txt", "x; then read y")]),
        ("write hello to the file a.txt", [Write("a.txt", "hello")]),
        ("create a file called x.txt with the text hello there", [Write("x.txt", "hello there")]),
        ("save the result in out.txt", [Write("out.txt", None)]),
        ("append 'one' to a.txt", [Write("a.txt", "one", append=True)]),
        ("add it to a.txt", [Write("a.txt", None, append=True)]),
        ("save this to a.txt:\n```\nline\n```", [Write("a.txt", "line")]),
        ("change `a b` to `c` in x.py", [Replace("x.py", "a b", "c")]),
        ("- ls\n- thanks", [List("."), Talk("thanks")]),
        ("ls; hello; go on", [List("."), Talk("hello"), Talk("continue")]),
        ("run mine on it all", [UseTool("mine", "it all")]),
        ('mine {"a": "b"}', [UseTool("mine", '{"a": "b"}')]),
        ("list files in .. then ls", [List(".."), List(".")]),
        ("list files in .., then ls... List src", [List(".."), List("."), List("src")]),
        ("use mine at=.", [UseTool("mine", "at=.")]),
        ("use mine at=.. then ls", [UseTool("mine", "at=.."), List(".")]),
        ("use mine at=. then use mine at=b.", [UseTool("mine", "at=."), UseTool("mine", "at=b")]),
        (
            "use mine at=. List src. Use mine at=./b",
            [UseTool("mine", "at=."), List("src"), UseTool("mine", "at=./b")],
        ),
        ("list src and sing", [Unknown("list src and sing")]),
        ("", []),
        (" \n ", []),
    ],
)
def test_plain_requests_are_understood(text, intents):
    assert understood(text, ["mine"]) == intents


def test_what_is_too_long_for_a_plain_request_is_unknown():
    assert understood(f"list {'x' * 2000}") == [Unknown(f"list {'x' * 2000}")]
    many = understood("ls\n" * 60)
    assert many[-1] == Unknown("10 more requests", partly=True)
    assert len(many) == 51


@given(
    st.lists(
        st.sampled_from(
            [*"ab .,;:'\"`\n(){}*[]", "list ", "read ", "then ", "and ", "find ", " in ", "it", "write "]
        )
    ).map("".join)
)
def test_no_text_confuses_the_reading_of_requests(text):
    assert isinstance(understood(text), list)


def test_a_sentence_reads_as_it_is_written():
    pattern = sentence("(a|b) [the] file[ in <path>]")
    assert pattern.fullmatch("B the file in my home")["path"] == "my home"
    assert pattern.fullmatch("a file")
    assert not pattern.fullmatch("a the")


TEXT = (
    "# Heading\n\nPods are actors and actors have mailboxes. It rained. A mailbox of an actor keeps its order.\n\n"
    "- Pods compact their history.\n- The weather was fine.\n\n```\ncode is not a sentence here\n```\n| a | table |\n"
)


def test_sentences_are_found_without_code_tables_and_marks():
    assert sentences(TEXT) == [
        *(
            "Pods are actors and actors have mailboxes.",
            "It rained.",
            "A mailbox of an actor keeps its order.",
        ),
        *("Pods compact their history.", "The weather was fine."),
    ]


def test_a_summary_is_made_of_the_sentences_that_say_most_in_their_order():
    assert summary(TEXT, most=2) == "Pods are actors and actors have mailboxes. Pods compact their history."
    assert summary("") == ""


@given(st.text(max_size=2000), st.integers(1, 6))
def test_a_summary_invents_nothing(text, most):
    found = sentences(text)
    left = summary(text, most=most)
    for each in sorted(found, key=len, reverse=True):
        left = left.replace(each, "")
    assert not left.strip()


TRANSCRIPT = """Here is what was said.
[user] Use tabs. Which port?
**assistant**: It is 8080,
since 80 is taken.
<tool name="read_file">port = 8080</tool>
System: be brief
"""

TAGGED = """<summary_so_far>
## Completed Tasks
- The parser.

## User Directives
The user's own words, oldest first:
- Use tabs.
</summary_so_far>

<conversation>
User: Read a.md.
  User: this is a line of the same words
Assistant: I do.
Assistant called: read_file
Result of read_file: error: there is no such file
</conversation>

Write the summary now."""


def test_a_transcript_is_read_by_the_roles_at_the_beginnings_of_lines():
    assert said_in_text(TRANSCRIPT) == [
        Said("user", "Use tabs. Which port?"),
        Said("assistant", "It is 8080,\nsince 80 is taken."),
        Said("tool", "port = 8080"),
        Said("system", "be brief"),
    ]
    assert said_in_text("no roles here: none") is None


def test_a_tagged_transcript_has_an_earlier_summary_and_nobody_speaks_for_another():
    said = said_in_text(TAGGED)
    assert said[1:] == [
        Said("user", "Read a.md.\nUser: this is a line of the same words"),
        Said("assistant", "I do."),
        Said("tool", "error: there is no such file", "read_file", failed=True),
    ]
    text = compacted(said)
    assert "## Completed Tasks\n- The parser.\n- read_file: failed: error: there is no such file" in text
    assert "## User Directives\n- Use tabs.\n- Read a.md. User: this" in text
    assert "own words" not in text
    assert said_in_text("<conversation>\n[nothing was said]\n</conversation>") == []


def test_a_compaction_of_a_compaction_keeps_what_the_user_directed():
    said = [Said("user", "Always use tabs."), Said("assistant", "Understood. " * 50), Said("user", "Go on.")]
    first = compacted(said)
    assert "Open request: Go on." in first
    again = compacted(
        [Said("system", f"{COMPACTED}\n{first}"), Said("user", "Next."), Said("assistant", "Did it. " * 90)]
    )
    assert "- Always use tabs." in again
    assert "Open request" not in again


SAID = st.lists(
    st.builds(
        Said,
        st.sampled_from(["user", "assistant", "system", "tool"]),
        st.text(st.sampled_from("ab c.\n"), max_size=400),
        st.just("read_file path=a"),
    ),
    max_size=30,
)


@given(SAID)
def test_a_compaction_is_bounded_whatever_was_said(said):
    source = sum(len(each.text) for each in said)
    assert len(compacted(said)) <= max(1200, source // 4)


def test_facts_are_empty_where_nothing_was_said():
    assert facts([]) == {"decisions": [], "discussions": [], "attempts": [], "requests": []}


@pytest.mark.parametrize(
    "words",
    [
        "use pay to=ann amount=5",
        "call pay(to='ann', amount=5)",
        'use the tool pay with to="ann", amount=5',
        'use pay {"to": "ann", "amount": 5}',
    ],
)
def test_a_tool_is_called_as_calls_are_shown(words: str):
    schema = {
        "properties": {"to": {"type": "string"}, "amount": {"type": "integer"}},
        "required": ["to", "amount"],
    }
    [intent] = understood(words, ["pay"])
    assert isinstance(intent, UseTool)
    assert arguments_from(intent.words, schema) == {"to": "ann", "amount": 5}


def test_what_the_runtime_reports_is_passed_on() -> None:
    report = "[sub-agent reader (777f73ec40dd) has ended: finished]\ndone\nand well"
    assert understood(report, ["run"]) == [PassOn("sub-agent reader", "finished", "done\nand well")]
    command = "[background command c1 has ended: exit code 0]\n$ make\nok"
    assert understood(command, ["run"]) == [PassOn("background command c1", "exit code 0", "$ make\nok")]
