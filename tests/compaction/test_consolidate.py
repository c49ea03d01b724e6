"""A draft of the notes: what a worker may do with it, and what becomes of the files."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.memory.notes import KINDS, Note, merged, parse, read_note, render
from actors.memory.notes_draft import Change, NotesDraft, digest, settled
from protocol.errors import ToolError

DATE = "2026-02-03"


def draft(texts=None, sources=("s:0-2",)):
    return NotesDraft(texts or {}, date=DATE, sources=sources)


def text_of(kind="decisions", title="Use tabs", body="- tabs"):
    return render(Note(kind, title, body, "2026-01-01", "2026-01-01", ("old:0-1",)))


def test_a_new_note_becomes_a_file_of_its_kind():
    made = draft()
    assert (
        made.write("knowledge", "The linker is slow", "- it takes a minute")
        == "knowledge/the-linker-is-slow.md"
    )
    (change,) = made.changes()
    assert (change.path, change.before) == ("knowledge/the-linker-is-slow.md", None)
    note = parse(change.text)
    assert (note.created, note.updated, note.sources) == (DATE, DATE, ("s:0-2",))


def test_what_is_written_to_a_note_that_is_there_is_added():
    old = text_of()
    made = draft({"decisions/use-tabs.md": old})
    made.write("decisions", "use TABS", "- tabs\n- of width 8")
    (change,) = made.changes()
    assert change.before == digest(old)
    assert parse(change.text).body == "- tabs\n- of width 8"


def test_a_note_whose_file_people_renamed_is_found_by_its_title():
    made = draft({"decisions/style.md": text_of()})
    assert made.write("decisions", "Use tabs", "- width 8") == "decisions/style.md"


def test_a_title_that_people_changed_leaves_its_file_to_the_note():
    made = draft({"decisions/use-tabs.md": text_of(title="Use spaces")})
    assert made.write("decisions", "Use tabs", "- tabs") == "decisions/use-tabs-2.md"
    assert [change.path for change in made.changes()] == ["decisions/use-tabs-2.md"]


def test_a_note_goes_only_when_another_has_taken_it_over():
    made = draft({"decisions/use-tabs.md": text_of(), "knowledge/tabs.md": text_of("knowledge", "Tabs")})
    with pytest.raises(ToolError, match="has not been written yet"):
        made.drop("knowledge/tabs.md", "decisions/use-tabs.md")
    made.write("decisions", "Use tabs", "- all of it")
    made.drop("knowledge/tabs.md", "decisions/use-tabs.md")
    gone = {change.path: change.text for change in made.changes()}
    assert gone["knowledge/tabs.md"] is None
    with pytest.raises(ToolError, match="no note 'knowledge/tabs"):
        made.note("knowledge/tabs.md")


def test_a_note_cannot_be_merged_into_itself():
    made = draft()
    path = made.write("summary", "Work", "- here")
    with pytest.raises(ToolError):
        made.drop(path, path)


@pytest.mark.parametrize(
    ("title", "text", "why"),
    [
        (" \n", "x", "title is empty"),
        ("x" * 81, "x", "at most 80 characters, got 81"),
        ("x", " ", "text is empty"),
        ("x", "y" * 8001, "at most 8000 characters, got 8001"),
        ("x", "---\nkind: summary\n---\n", "begins with front matter"),
    ],
)
def test_what_is_no_note_is_refused_with_what_to_do(title, text, why):
    with pytest.raises(ToolError, match=why):
        draft().write("summary", title, text)


def test_a_note_does_not_grow_without_end():
    made = draft()
    for number in range(4):
        made.write("summary", "Work", f"{number} " + "x" * 7990)
    with pytest.raises(ToolError, match="longer than 32000"):
        made.write("summary", "Work", "9 " + "y" * 7000)


def test_no_secret_gets_onto_the_shelf():
    made = draft()
    made.write(
        "summary", "Key sk-abcdefghijklmnop1234", "Bearer abcdefghijklmnop1234 and https://u:hunter22@host/"
    )
    made.rewrite(made.write("summary", "Other", "x"), "password: hunter22")
    reported = "".join(change.text for change in made.changes())
    for secret in ("sk-abcdef", "abcdefghijklmnop1234", "hunter22"):
        assert secret not in reported


def test_words_that_a_note_said_already_count_as_written_and_change_nothing():
    text = text_of()
    made = draft({"decisions/use-tabs.md": text}, sources=())
    made.write("decisions", "Use tabs", "- TABS!")
    assert made.written
    assert made.changes() == []


def test_the_listing_names_the_notes_that_changed_last_and_counts_the_others():
    texts = {
        f"summary/{n}.md": render(Note("summary", f"n{n}", "b", DATE, f"2026-01-{n:02}"))
        for n in range(1, 21)
    }
    lines = draft(texts).listing(40).split("\n")
    assert lines[0] == "- summary/20.md: n20"
    assert lines[-1] == f"[{20 - len(lines) + 1} more]"
    assert draft().listing() == "[none yet]"


def test_a_file_without_front_matter_is_a_note_of_its_folder():
    note = read_note("requests/how-we-work.md", "Ask first.\n")
    assert (note.kind, note.title, note.body) == ("requests", "how we work", "Ask first.")


def test_what_people_wrote_meanwhile_stays_and_what_is_new_is_added():
    change = Change("decisions/use-tabs.md", digest(text_of()), text_of(body="- tabs\n- width 8"))
    edited = text_of(body="- tabs\n- but not in YAML")
    assert parse(settled(change.path, edited, change)).body == "- tabs\n- but not in YAML\n- width 8"
    assert settled(change.path, text_of(), change) == change.text
    assert settled(change.path, None, change) == change.text
    deletion = Change(change.path, change.before)
    assert settled(change.path, text_of(), deletion) is None
    assert settled(change.path, edited, deletion) == edited
    assert settled(change.path, None, deletion) is None


any_text = st.text(max_size=60)


@given(st.sampled_from(KINDS), any_text, any_text, any_text, any_text)
@example("summary", "", "", "", "lines of\r\nanother system")
def test_a_change_that_is_made_twice_is_made_once(kind, title, old, new, edited):
    before, after = text_of(kind, title or "t", old), text_of(kind, title or "t", new)
    path = f"{kind}/x.md"
    change = Change(path, digest(before), after)
    for now in (before, None, text_of(kind, title or "t", edited), edited):
        once = settled(path, now, change)
        assert settled(path, once, change) == once


@given(st.sampled_from(KINDS), any_text, any_text)
def test_any_words_are_read_back_from_a_file_as_one_note(kind, title, body):
    note = Note(kind, " ".join(title.split()) or "t", body, DATE, DATE)
    again = parse(render(note))
    assert (again.kind, again.title) == (note.kind, note.title)
    assert parse(render(again)) == again
    assert merged(again, again) == again


# -- nothing is lost, and the last word holds ----------------------------------------------------


def knowledge(title: str, body: str) -> Note:
    return Note("knowledge", title, body, DATE, DATE, ("s:0-2",))


def test_findings_that_were_not_worked_in_are_added_as_they_were_found():
    made = draft()
    made.write("knowledge", "Ports", "- The server listens on 8080")
    found = [
        knowledge("Server", "- It listens on port 8080 of the server"),
        knowledge("Database", "- It is Postgres 15"),
        knowledge("Server", "- It listens on 8081 since June"),
    ]
    assert made.complete(found) == 2
    reported = {change.path: change.text for change in made.changes()}
    assert sorted(reported) == ["knowledge/database.md", "knowledge/ports.md", "knowledge/server.md"]
    assert "8081" in reported["knowledge/server.md"]
    assert "8080" not in reported["knowledge/server.md"]


def test_what_another_note_says_already_is_not_added_again():
    made = draft({"knowledge/old.md": render(knowledge("Old", "- It is Postgres 15"))})
    assert made.complete([knowledge("Database", "- it is Postgres 15")]) == 0
    assert made.changes() == []


def test_a_fact_that_was_corrected_and_corrected_back_stands_last():
    made = draft()
    for port in (8080, 9090, 8080):
        made.add(knowledge("Port", f"- The port is {port}"))
    assert made.note("knowledge/port.md").body == "- The port is 9090\n- The port is 8080"


def test_a_note_that_was_not_read_is_replaced_only_by_what_says_all_of_it():
    made = draft({"knowledge/db.md": render(knowledge("DB", "- It is Postgres 15\n- It runs on host A"))})
    with pytest.raises(ToolError, match=r"(?s)have not read.*Postgres 15.*host A"):
        made.rewrite("knowledge/db.md", "- It has 3 replicas")
    assert not made.written
    made.rewrite("knowledge/db.md", "- It has 3 replicas")  # now it knows what the note says
    other = draft({"knowledge/db.md": render(knowledge("DB", "- It is Postgres 15"))})
    other.rewrite("knowledge/db.md", "- It is Postgres 15, with 3 replicas")


def test_a_note_that_was_not_read_is_deleted_only_where_another_says_all_of_it():
    made = draft({"knowledge/db.md": render(knowledge("DB", "- It is Postgres 15\n- It runs on host A"))})
    made.write("knowledge", "Database", "- It has 3 replicas")
    with pytest.raises(ToolError, match=r"(?s)have not read.*Postgres 15"):
        made.drop("knowledge/db.md", "knowledge/database.md")
    made.write("knowledge", "Database", "- It is Postgres 15 and runs on host A")
    made.drop("knowledge/db.md", "knowledge/database.md")
