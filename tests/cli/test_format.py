"""Formats for people: short, safe to print, and honest about what is not known."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.cli.display import format as words
from protocol.usage import Usage


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0 B"), (999, "999 B"), (1200, "1.2 kB"), (3_400_000, "3.4 MB"), (7e12, "7000.0 GB")],
)
def test_sizes_read_as_people_say_them(number: float, said: str):
    assert words.size(int(number)) == said


@pytest.mark.parametrize(
    ("duration", "said"),
    [
        (0.0401, "40 ms"),
        (0.9999, "1.0 s"),
        (2.5, "2.5 s"),
        (59.97, "1 min 0 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations_read_as_people_say_them(duration: float, said: str):
    assert words.seconds(duration) == said


@pytest.mark.parametrize(
    ("duration", "said"),
    [(0, "0.00 us"), (42.13e-6, "42.1 us"), (0.9996e-3, "1.00 ms"), (0.1234, "123 ms"), (75.25, "75.2 s")],
)
def test_short_durations_keep_three_digits(duration: float, said: str):
    assert words.brief(duration) == said


@pytest.mark.parametrize(
    ("passed", "said"),
    [(-3, "just now"), (2, "just now"), (30, "30 s ago"), (300, "5 min ago"), (90_000, "1 d ago")],
)
def test_how_long_ago_something_was(passed: float, said: str):
    assert words.ago(1000, 1000 + passed) == said


def test_counts_have_their_plural():
    assert [words.count(n, "request") for n in (0, 1, 12_000)] == [
        "0 requests",
        "1 request",
        "12,000 requests",
    ]


@given(st.text(), st.integers(1, 80))
def test_a_cut_is_one_line_that_fits_and_obeys_nothing(text: str, width: int):
    line = words.cut(text, width)
    assert len(line) <= width
    assert not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in line)


@given(st.text())
def test_cleaned_text_keeps_all_but_control_characters(text: str):
    printable = [c for c in text if c in "\t\n" or not (ord(c) < 32 or 0x7F <= ord(c) < 0xA0)]
    cleaned = words.clean(text)
    assert [c for c in cleaned if c != "\N{REPLACEMENT CHARACTER}"] == [
        c for c in printable if c != "\N{REPLACEMENT CHARACTER}"
    ]


def test_an_escape_sequence_of_a_file_does_not_reach_the_terminal():
    assert "\x1b" not in words.clean("\x1b[2Jgone")


def test_usage_says_what_no_server_reported():
    assert words.tokens(Usage()) == "tokens unknown"
    assert words.tokens(Usage(1234, 56)) == "1,234 tokens in, 56 out"
    assert words.tokens(Usage(1234, None, incomplete=True)) == "1,234 tokens in, ? out, more unknown"
    assert words.tokens(Usage(10, 5, cache_read_tokens=8)) == "10 tokens in (8 cached), 5 out"


def test_arguments_are_cut_to_the_width():
    assert words.arguments({"path": "a.txt", "limit": 3}) == "path='a.txt', limit=3"
    assert words.arguments({"text": "x" * 5000}, 20) == "text='" + "x" * 13 + "…"


@pytest.mark.parametrize("padding", ["x" * 250, " " * 5000])
@pytest.mark.parametrize("as_list", [False, True])
def test_what_is_cut_from_a_calls_arguments_says_so(padding: str, *, as_list: bool) -> None:
    command = f"echo{padding}; rm -r ."
    said = words.arguments({"command": [command] if as_list else command}, 400)
    assert "rm -r" in said or said.endswith("…")


def test_what_nobody_sees_is_an_escape_in_arguments() -> None:
    said = words.arguments({"a\u202eb": "rm\u3164 \u2066x\ufe0f"})
    assert said == r"a\u202eb='rm\u3164 \u2066x\ufe0f'"


def test_a_time_that_no_clock_shows_is_its_number() -> None:
    assert re.fullmatch(r"\d\d:\d\d:\d\d", words.clock(1.5e9))
    assert [words.clock(at) for at in (1e300, float("inf"), float("nan"))] == ["1e+300", "inf", "nan"]
