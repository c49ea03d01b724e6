"""An edit keeps what it was not asked to change: line ends, marks, encodings, and every other place."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.tools.filesystem.replacing import edit, with_ends_of
from protocol.errors import ToolError


@pytest.mark.parametrize(
    ("before", "old", "new", "after"),
    [
        (b"one\r\ntwo\r\nthree\r\n", "two", "2\n2b", b"one\r\n2\r\n2b\r\nthree\r\n"),
        (b"one\r\ntwo\r\n", "one\ntwo\n", "1\n", b"1\r\n"),
        (b"x = 1\r\n", "x = 1\r\n", "x = 2\n", b"x = 2\r\n"),
        (b"a\nb\n", "a\r\nb", "c\r\nd", b"c\nd\n"),
        (b"a\rb\rc\r", "a\nb", "x\ny\nz", b"x\ry\rz\rc\r"),
        (b"a\r\nb\nc", "c", "C\nD", b"a\r\nb\nC\nD"),
        (b"a\r\nb\nc\r\n", "a\nb\nc", "A\nB\nC", b"A\r\nB\nC\r\n"),
        (b"a\r\nb\nc\n", "a\nb", "A\nB\nC", b"A\r\nB\r\nC\nc\n".replace(b"C\nc", b"C\nc")),
        (b"prefix\rprogress\n", "prefix", "PREFIX", b"PREFIX\rprogress\n"),
        (b"\xef\xbb\xbfhello\r\nworld", "hello", "bye\nbye", b"\xef\xbb\xbfbye\r\nbye\r\nworld"),
        (b"no end", "end", "end\nat all", b"no end\nat all"),
        (b"caf\xe9 one\nplain\n", "plain", "PLAIN", b"caf\xe9 one\nPLAIN\n"),
        (b"a\0" * 0 + b"x\x0cy\n", "x", "z", b"z\x0cy\n"),
    ],
)
def test_an_edit_has_the_line_ends_of_the_file(pwd, use, before, old, new, after):
    (pwd / "f").write_bytes(before)
    result = use("edit_file", path="f", old=old, new=new)
    assert not result.is_error, result.text
    assert (pwd / "f").read_bytes() == after


@pytest.mark.parametrize(
    ("before", "old", "new", "words"),
    [
        (b"x = 1\nx = 1\nx = 1\n", "x = 1\nx = 1", "Y", "occurs 2 times"),
        (b"aaa\n", "aa", "b", "occurs 2 times"),
        (b"ab\r\nab\nab\n", "ab\nab", "c", "occurs 2 times"),
        (b"caf\xe9 one\n", "one", "\u00e9", "not in UTF-8"),
        (b"\x83\x5c a\n", "\\", "/", "inside a character"),
        ("häuser\n".encode("utf-16"), "h", "H", "UTF-16"),
        (b"a\r\nb\r\n", "a\r\nb", "a\nb", "only in line endings"),
    ],
)
def test_an_edit_that_would_break_something_is_refused(pwd, use, before, old, new, words):
    (pwd / "f").write_bytes(before)
    result = use("edit_file", path="f", old=old, new=new)
    assert result.is_error
    assert words in result.text
    assert (pwd / "f").read_bytes() == before


def test_what_was_read_can_be_used_as_old_without_the_mark_before_it(pwd, use):
    (pwd / "f").write_bytes(b"\xef\xbb\xbfdef f():\r\n\treturn 1\r\n")
    read = use("read_file", path="f").text
    assert read == "def f():\n\treturn 1\n"
    assert not use("edit_file", path="f", old=read, new="def g():\n").is_error
    assert (pwd / "f").read_bytes() == b"\xef\xbb\xbfdef g():\r\n"


def test_what_is_added_has_the_line_ends_of_the_file(pwd, use):
    (pwd / "f").write_bytes(b"a\r\nb\r\n")
    use("write_file", path="f", content="c\nd\r\n", append=True)
    assert (pwd / "f").read_bytes() == b"a\r\nb\r\nc\r\nd\r\n"
    use("write_file", path="new", content="c\nd\r\n", append=True)
    assert (pwd / "new").read_bytes() == b"c\nd\r\n"


END = st.sampled_from(["\n", "\r\n"])
LINES = st.lists(st.sampled_from(["", "a", "b", "ab", "aa"]), min_size=1, max_size=6)


@given(LINES, END, st.integers(0, 5), st.integers(1, 3), LINES, END)
@example(["a", "a"], "\r\n", 0, 1, ["b", ""], "\n")
def test_an_edit_of_whole_lines_is_an_edit_of_the_list_of_lines(lines, end, at, count, new, model_end):
    lines = [f"{n}{line}" for n, line in enumerate(lines)]  # each is there once
    at = min(at, len(lines) - 1)
    taken = lines[at : at + count]
    result = (
        edit(
            end.join(lines),
            model_end.join(taken),
            model_end.join(new),
            everywhere=False,
            any_form=False,
            name="f",
        )
        if taken != new
        else None
    )
    if result is not None:
        # where the file has no line end of its own, nobody can say which it would have
        wanted_end = end if len(lines) > 1 else "\n"
        assert result.text == wanted_end.join([*lines[:at], *new, *lines[at + len(taken) :]])


MIXED = st.lists(st.sampled_from(["a", "b", "\n", "\r\n", "\r", "\u00e9", "\ufeff"]), max_size=10).map(
    "".join
)


@given(MIXED, MIXED.filter(bool), MIXED, st.booleans())
def test_all_but_the_places_stays_and_places_are_counted(text, old, new, everywhere):
    try:
        done = edit(text, old, new, everywhere=everywhere, any_form=False, name="f")
    except ToolError:
        return
    assert everywhere or done.places == 1
    if done.places > len(done.changes):
        return  # only the first are reported
    rest, at = [], 0
    for change in done.changes:
        assert change.start >= at
        rest.append(text[at : change.start])
        at = change.end
    rest.append(text[at:])
    pieces = [
        each
        for pair in zip(rest, [change.new for change in done.changes] + [""], strict=True)
        for each in pair
    ]
    assert "".join(pieces) == done.text
    if "\n" in text and "\r" not in text.replace("\r\n", "") and "\r" not in new.replace("\r\n", ""):
        bare = text.replace("\r\n", "").count("\n")
        if not bare:
            assert "\n" not in done.text.replace("\r\n", ""), (
                "no bare line feed comes into a file that has none"
            )


@given(MIXED, MIXED)
def test_ends_are_only_changed_where_all_are_alike(sample, new):
    changed = with_ends_of(sample, new)
    assert changed.replace("\r\n", "\n") == new.replace("\r\n", "\n")
    if sample.count("\n") != sample.count("\r\n") or "\n" not in sample:
        assert changed == new


def test_a_folder_that_is_named_is_searched_and_what_was_left_out_is_said(pwd, use):
    for folder in ("node_modules/lib", ".venv/lib", "src"):
        (pwd / folder).mkdir(parents=True)
        (pwd / folder / "index.js").write_text("needle\n")
    (pwd / "src" / "index.js").write_text("hay\n")
    assert use("grep", pattern="needle", path="node_modules").text == "lib/index.js:1: needle"
    assert (
        use("grep", pattern="needle", glob="node_modules/**/*.js").text
        == "node_modules/lib/index.js:1: needle"
    )
    assert use("find_files", pattern="node_modules/**/*.js").text == "node_modules/lib/index.js"
    assert use("find_files", pattern="{.venv,src}/**/*.js").text == ".venv/lib/index.js\nsrc/index.js"
    for tool in ("grep", "find_files"):
        text = use(tool, pattern="needle").text
        assert "left out as ignored: .venv/, node_modules/" in text
        assert "include_ignored" in text
    assert "left out as ignored" not in use("grep", pattern="hay").text


def test_an_edit_of_a_large_file_takes_no_time_to_speak_of_whatever_is_in_it():
    """Each of these took minutes, some of them without letting another thread run."""
    began = time.process_time()
    for text, old in (
        (("word " * 200 + "\n") * 1500, "word " * 199 + "end"),  # nearly there on every line
        ("a" * 2_000_000, "a" * 1000),  # at every place
        ("li\u00e9 of te\u0301xt here\n" * 60_000, "nope \u201cx\u201d"),
        ("a " * 60_000, "a " * 150 + "b"),
    ):
        with pytest.raises(ToolError):
            edit(text, old, "new", everywhere=False, any_form=False, name="f")
    done = edit("ab\n" * 600_000, "ab", "cde", everywhere=True, any_form=False, name="f")
    assert done.places == 600_000
    assert done.text == "cde\n" * 600_000
    assert time.process_time() - began < 10


def test_too_many_places_with_line_ends_of_their_own_are_refused():
    with pytest.raises(ToolError, match="more than 50,000 times"):
        edit("ab\r\n" * 50_001, "ab", "c", everywhere=True, any_form=False, name="f")


def test_a_text_that_differs_only_in_blanks_is_reported_with_its_line():
    text = "one\n\ntwo  three\n\tfour\n"
    for old, line in (("two three", 3), ("three\nfour", 3), ("  one two", 1), ("hree four", 3)):
        with pytest.raises(ToolError, match=f"at line {line} only spaces"):
            edit(text, old, "x", everywhere=False, any_form=False, name="f")
