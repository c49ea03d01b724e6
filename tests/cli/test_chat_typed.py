"""What a person types in a chat, and what a chat shows: the pure parts."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from actors.cli.chat.footer import footer_line, short
from actors.cli.chat.slash import COMMANDS, NAMES, command_named, help_lines, likely
from actors.cli.chat.typed import ShellLine, SlashCommand, Words, mention_before, mentions, understand
from actors.cli.display.markdown_blocks import MarkdownBlocks


@pytest.mark.parametrize(
    ("line", "typed"),
    [
        ("hello", Words("hello")),
        ("  a\n/b ", Words("a\n/b")),
        ("/model ollama/qwen3", SlashCommand("model", "ollama/qwen3")),
        ("/help", SlashCommand("help", "")),
        ("//usr/bin", Words("/usr/bin")),
        ("!git  status", ShellLine("git  status")),
        ("!!important", Words("!important")),
        ("/", None),
        ("!", None),
        (" \n", None),
    ],
)
def test_a_line_is_words_a_command_or_the_shells(line: str, typed: object):
    assert understand(line) == typed


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see @a.txt and @b/c.py.", [("a.txt",), ("b/c.py.", "b/c.py")]),
        ('@"my notes.md", please', [("my notes.md",)]),
        ("(@x) @x", [("x)", "x"), ("x",)]),
        ("mail me@example.com, or @", []),
        ("@a @a", [("a",)]),
    ],
)
def test_files_are_named_behind_an_at(text: str, found: list[tuple[str, ...]]):
    assert mentions(text) == found


@given(st.text(alphabet='@a./" \n!?)', max_size=30))
def test_no_text_is_too_odd_for_names_of_files(text: str):
    assert all(names and all(names) for names in mentions(text))


@pytest.mark.parametrize(
    ("before", "typed"),
    [("see @", ""), ("@sr", "sr"), ('@"my no', "my no"), ("a@b", None), ("@a ", None), ("hello", None)],
)
def test_a_files_name_that_is_being_typed_is_known(before: str, typed: str | None):
    assert mention_before(before) == typed


def test_commands_go_by_their_beginnings_and_by_what_others_call_them():
    assert [command_named(name) for name in ("mod", "quit", "new", "c", "", "nope")] == [
        "model", "exit", "clear", None, None, None,
    ]  # fmt: skip
    assert (likely("modle"), likely("xyzzy")) == ("model", None)
    assert len(set(NAMES)) == len(COMMANDS)


@pytest.mark.parametrize("columns", [40, 100])
def test_the_help_of_a_chat_and_its_footer_fit_the_terminal(columns: int):
    lines = list(help_lines(columns))
    assert max(map(cell_len, lines)) < columns
    assert all(any(f"/{name}" in line for line in lines) for name in NAMES)
    line = footer_line(
        "openai/a-model-with-a-long-name", 123_456, 1.5, "/home/me/src/app", "/home/me", columns
    )
    assert cell_len(line) < columns
    assert line.startswith("openai/a-model")
    assert ("~/src/app" in line) == (columns == 100)


def test_counts_of_tokens_are_short():
    assert [short(n) for n in (0, 999, 1000, 12_345, 999_949, 1_200_000)] == [
        "0", "999", "1.0k", "12.3k", "999.9k", "1.2M",
    ]  # fmt: skip


pieces_of_markdown = st.sampled_from(
    [
        "word ",
        "\n",
        "\n\n",
        "- item\n",
        "1. x\n",
        "    code\n",
        "```py\n",
        "```\n",
        "~~~\n",
        "# T\n",
        "| a |\n",
        "`",
    ]
)


@given(st.lists(pieces_of_markdown, max_size=25), st.data())
def test_blocks_are_the_same_however_the_text_comes(pieces: list[str], data: st.DataObject):
    text = "".join(pieces)
    whole, parted = MarkdownBlocks(), MarkdownBlocks()
    expected = [*whole.feed(text), *whole.end()]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        found += parted.feed(text[start:end])
    assert [*found, *parted.end()] == expected
    assert parted.rest == ""
    shown = "".join(block.text for block in expected)
    assert re.sub(r"[`~\s]|py", "", shown) == re.sub(r"[`~\s]|py", "", text)


def test_a_block_comes_out_once_nothing_can_change_it_and_long_code_before_its_end():
    blocks = MarkdownBlocks()
    assert blocks.feed("one\n\n") == []
    assert [block.text for block in blocks.feed("two")] == []
    assert [block.text for block in blocks.feed("\n")] == ["one\n\n"]
    [two] = blocks.feed("```\n")
    assert two.text == "two\n"
    code = blocks.feed("x\n" * 70)
    assert [(block.text.count("x"), block.joins) for block in code] == [(30, False), (30, True)]
    assert [(block.text, block.joins) for block in blocks.feed("```\n")] == [
        ("```\n" + "x\n" * 10 + "```\n", True)
    ]
