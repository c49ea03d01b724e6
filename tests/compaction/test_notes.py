import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.memory.findings import Attempt, Decision, Discussion, Extracted, UserRequest
from actors.memory.notes import (
    KINDS,
    Note,
    covers,
    deduplicated,
    key_of,
    merged,
    notes_of,
    parse,
    pieces_of,
    render,
    slug,
)
from protocol.errors import WireError


def note(title="Use tabs", body="- tabs", **fields):
    plain = {"kind": "decisions", "created": "2026-01-01", "updated": "2026-01-02", "sources": ("s1:0-9",)}
    return Note(title=title, body=body, **{**plain, **fields})


FOUND = Extracted(
    (Decision("Use tabs", ("tabs", "spaces"), "the team agreed"),),
    (Discussion("Build times", ("the linker is slow",)),),
    (Attempt("Enable LTO", "took an hour", succeeded=False),),
    (UserRequest("port", "Port the parser", "src/parser.py"),),
)


def test_a_note_is_markdown_with_front_matter():
    assert render(note(title='Say "no"')) == (
        '---\nkind: decisions\ntitle: "Say \\"no\\""\ncreated: 2026-01-01\nupdated: 2026-01-02\n'
        'sources:\n  - "s1:0-9"\n---\n\n- tabs\n'
    )


def test_a_note_that_people_edited_is_read():
    text = "---\r\ntitle: Use 'tabs'\r\nkind: knowledge\r\ntags: [a, b]\r\ncreated: '2026-01-01'\r\n---\r\nSo be it.\r\n"
    read = parse(text)
    assert (read.title, read.kind, read.created, read.body) == (
        "Use 'tabs'",
        "knowledge",
        "2026-01-01",
        "So be it.",
    )
    assert read.extra == ("tags: [a, b]",)
    assert "tags: [a, b]" in render(read)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("just text", "does not begin with front matter"),
        ("---\nkind: poem\ntitle: x\n---\n", "kind is 'poem', expected one of summary, decisions"),
        ("---\nkind: summary\n---\n", "has no title"),
    ],
)
def test_what_is_no_note_says_why(text, why):
    with pytest.raises(WireError, match=why):
        parse(text)


def test_merged_notes_say_nothing_twice():
    old = note(body="Intro.\n\n- tabs\n- Spaces are out.\n  Why: taste")
    new = note(body="- spaces ARE out\n  why: taste\n- wide tabs", updated="2026-03-01", sources=("s2:0-4",))
    both = merged(old, new)
    assert both.body == "Intro.\n\n- tabs\n- Spaces are out.\n  Why: taste\n- wide tabs"
    assert (both.created, both.updated, both.sources) == ("2026-01-01", "2026-03-01", ("s1:0-9", "s2:0-4"))


def test_a_note_that_brings_nothing_new_changes_no_date():
    assert merged(note(), note(updated="2026-09-09")).updated == "2026-01-02"


def test_notes_of_one_kind_and_title_are_one():
    assert [each.title for each in deduplicated([note(), note("use TABS!"), note("Other")])] == [
        "Use tabs",
        "Other",
    ]
    assert len(deduplicated([note(), note(kind="knowledge")])) == 2


def test_what_was_extracted_becomes_notes_by_kind():
    notes = notes_of(FOUND, source="s1:0-9", date="2026-01-01")
    assert [(each.kind, each.title) for each in notes] == [
        ("decisions", "Use tabs"),
        ("requests", "Port the parser"),
        ("knowledge", "Build times"),
        ("knowledge", "Enable LTO"),
    ]
    assert notes[0].body == "- Use tabs (options: tabs, spaces)\n  Why: the team agreed"
    assert notes[1].body == "- port (src/parser.py): Port the parser"
    assert notes[3].body == "- Enable LTO: did not work, took an hour"
    assert all(each.sources == ("s1:0-9",) for each in notes)


def test_notes_hold_no_secrets():
    found = Extracted((Decision("Use password=hunter22", rationale="key sk-abcdefghijklmnopqrstuv"),))
    (made,) = notes_of(found, source="s", date="2026-01-01")
    assert "hunter22" not in render(made)
    assert "sk-abc" not in render(made)


def test_notes_have_file_names_in_any_script_that_never_leave_the_folder():
    assert slug("Use tabs, not spaces!") == "use-tabs-not-spaces"
    assert slug("Größe der Häuser") == "größe-der-häuser"
    assert slug("../../etc/passwd") == "etc-passwd"
    assert slug("!!!") != slug("???")
    assert note("../x", kind="summary").path == "summary/x.md"
    assert len(slug("x" * 500)) <= 60
    assert slug("x" * 500) != slug("x" * 501)


lines = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=40)


@given(
    st.sampled_from(KINDS), lines.filter(str.strip), st.lists(lines, max_size=8), st.lists(lines, max_size=3)
)
def test_every_note_is_read_back_as_it_was_written(kind, title, body, sources):
    sources = tuple(" ".join(source.split()) for source in sources)
    made = note(" ".join(title.split()), "\n".join(body).strip(), kind=kind, sources=sources)
    assert parse(render(made)) == made
    assert slug(made.title)
    assert "/" not in slug(made.title)


@given(st.lists(lines, max_size=8), st.lists(lines, max_size=8))
def test_merging_the_same_again_changes_nothing(one, two):
    once = merged(note(body="\n".join(one)), note(body="\n".join(two)))
    assert merged(once, note(body="\n".join(two))) == once


@given(st.lists(lines, max_size=8), st.lists(lines, max_size=8))
@example(["0", "", " 0"], ["0"])
def test_with_the_last_word_all_that_was_said_stays_and_the_newest_stands_last(one, two):
    old, new = note(body="\n".join(one)), note(body="\n".join(two))
    both = merged(old, new, last_word=True)
    assert {key_of(piece) for piece in pieces_of(both.body)} == {
        key_of(piece) for each in (old, new) for piece in pieces_of(each.body)
    }
    said = [key_of(piece) for piece in pieces_of(new.body)]
    assert not said or key_of(pieces_of(both.body)[-1]) == said[-1]
    assert merged(both, new, last_word=True) == both


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Use C++ for the core", "Use C# for the core"),
        ("more than five: > 5", "more than five: < 5"),
        ("the offset is -5", "the offset is 5"),
        ("end where x == y", "end where x != y"),
        ("दिन", "दान"),
        ("กิน", "กัน"),
    ],
)
def test_what_differs_by_a_sign_or_a_mark_is_said_beside_the_other(one, other):
    both = merged(note(body=f"- {one}"), note(body=f"- {other}"), last_word=True)
    assert both.body == f"- {one}\n- {other}"


@pytest.mark.parametrize(
    "other", ["Use **tabs**!", "use (tabs)", "Use `tabs` -", "“Use tabs.”", "- use\n  tabs", "Use tabs…"]
)
def test_what_differs_by_punctuation_alone_is_said_once(other):
    both = merged(note(body="- Use tabs"), note(body=other), last_word=True)
    assert both.body == "- Use tabs"


def test_titles_keep_the_marks_on_their_letters():
    assert slug("हिन्दी में") == "हिन्दी-में"
    assert slug("दिन") != slug("दान")
    assert slug("cafe\u0301 au lait") == "café-au-lait"


@pytest.mark.parametrize(
    ("text", "piece", "held"),
    [
        ("The core is in C++", "- Use C# for the core", False),
        ("हमारा दिन अच्छा था", "- दान देना है", False),
        ("हमारा दिन अच्छा था", "- अच्छा दिन", True),
        ("We indent with tabs, by taste", "- Use tabs\n  Why: taste", True),
        ("The port is 9090", "- The port is 8080", False),
        ("It is Postgres 15 with 3 replicas", "- It runs on host A", False),
        ("anything", "- it is so", True),
    ],
)
def test_words_hold_a_piece_where_they_have_its_numbers_and_half_of_its_other_words(text, piece, held):
    assert covers(text, piece) is held
