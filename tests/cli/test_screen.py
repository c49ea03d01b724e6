"""Text that is written while a person types, and what stands above the line that is typed."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from actors.cli.display.screen import Screen


def screen() -> tuple[Screen, io.StringIO]:
    out = io.StringIO()
    out.isatty = lambda: True  # type: ignore[method-assign]
    return Screen(out, out), out


def test_without_a_prompt_text_is_written_as_it_comes():
    shown, out = screen()
    shown.out.write("half a li")
    assert out.getvalue() == "half a li"
    assert not shown.shows
    assert shown.above_prompt(40) == ""


@given(
    st.text(alphabet="a b\n漢é", max_size=300), st.text(alphabet="xyz 漢", max_size=60), st.integers(3, 50)
)
def test_what_stands_above_the_prompt_fits_the_terminal(tail: str, words: str, columns: int):
    shown, _ = screen()
    shown.show_tail(tail)
    shown.show(words)
    text = shown.above_prompt(columns)
    lines = text.split("\n")[:-1]
    assert len(lines) <= 7
    assert all(cell_len(line) < columns for line in lines)
    assert text == "" or text.endswith("\n")
    shown.idle()
    shown.show_tail("")
    assert shown.above_prompt(columns) == ""


@pytest.mark.parametrize("plain", [False, True])
def test_what_goes_on_has_a_moving_sign_and_keeps_its_time_with_other_words(plain: bool):
    shown, _ = screen()
    shown.show("thinking…")
    shown.show("writing…")
    line = shown.above_prompt(40, plain=plain)
    assert line.endswith("writing…\n")
    assert (line[0] in "-\\|/") == plain


def test_a_stream_that_is_no_terminal_is_left_alone():
    out = io.StringIO()
    shown = Screen(out, out)
    assert shown.out is out


def test_a_stream_that_another_has_closed_is_let_go_of_in_peace():
    shown, out = screen()
    out.close()
    shown.out.close()
    assert not shown.out.closed
