"""Lasting memory from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_kit import Home

from actors.memory.findings import Decision, Extracted
from actors.memory.notes import Note, render
from actors.memory.staging import Staged, stage


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    put(home, Note("decisions", "Use tabs", "- tabs, said the user", "2026-01-01", "2026-01-02", ("s:0-2",)))
    put(home, Note("knowledge", "The linker is slow", "- a minute", "2026-01-01", "2026-01-01"))
    put(home, Note("knowledge", "The parser", "- in src", "2026-01-01", "2026-01-01"))
    return home


def folder(home: Home) -> Path:
    return home.state / "polypod" / "memory"


def put(home: Home, note: Note) -> None:
    path = folder(home) / note.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(note))


def test_notes_are_listed_by_their_paths(home: Home) -> None:
    stage(folder(home) / "staging", Staged("s", 0, 1, Extracted((Decision("Use spaces"),))))
    listed = home.polypod("memory", "list")
    assert listed.out.splitlines()[1] == "decisions/use-tabs.md            2026-01-02  Use tabs"
    assert "1 file of findings staged" in listed.err
    assert home.polypod("memory").out == listed.out
    assert home.polypod("memory", "--memory", str(folder(home))).out == listed.out
    reported = home.polypod("memory", "list", "--json", "--kind", "decisions").lines
    assert reported == [
        {
            "path": "decisions/use-tabs.md",
            "kind": "decisions",
            "title": "Use tabs",
            "created": "2026-01-01",
            "updated": "2026-01-02",
            "sources": ["s:0-2"],
        }
    ]


def test_notes_are_searched_with_any_words(home: Home) -> None:
    found = home.polypod("memory", "search", 'who said "tabs" AND (')
    assert found.code == 0
    assert found.out.splitlines()[0] == "decisions/use-tabs.md  Use tabs (decisions)"
    [hit] = home.polypod("memory", "search", "the", "linker", "--json").lines[:1]
    assert (hit["path"], hit["snippet"]) == ("knowledge/the-linker-is-slow.md", "- a minute")
    nothing = home.polypod("memory", "search", "zzz")
    assert (nothing.code, nothing.out) == (0, "")
    assert "nothing found" in nothing.err


def test_a_note_is_shown_by_its_path_or_the_beginning_of_its_name(home: Home) -> None:
    shown = home.polypod("memory", "show", "decisions/use-tabs.md")
    assert shown.out.splitlines()[0] == "Use tabs"
    assert shown.out.endswith("- tabs, said the user\n")
    assert home.polypod("memory", "show", "use").out == shown.out
    assert home.polypod("memory", "show", "decisions/use-t…").out == shown.out
    [reported] = home.polypod("memory", "show", "use-tabs", "--json").lines
    assert (reported["title"], reported["body"]) == ("Use tabs", "- tabs, said the user")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("use-tab5", "no note 'use-tab5' in"),
        (
            "the",
            "'the' matches 2 notes: knowledge/the-linker-is-slow.md, knowledge/the-parser.md",
        ),
        ("../../etc/passwd", "no note '../../etc/passwd'"),
        ("", "no note ''"),
    ],
)
def test_a_name_that_means_no_one_note_says_so(home: Home, name: str, why: str) -> None:
    refused = home.polypod("memory", "show", name)
    assert refused.code == 2
    assert why in refused.err
    if name == "use-tab5":
        assert "did you mean 'use-tabs'?" in refused.err


def test_another_folder_is_named_by_option_or_variable_and_an_empty_one_is_no_error(home: Home) -> None:
    empty = home.polypod("memory", "list", "--memory", str(home.folder / "none"))
    assert (empty.code, empty.out) == (0, "")
    assert "no notes in" in empty.err
    home.env["POLYPOD_MEMORY"] = str(folder(home))
    home.env["XDG_STATE_HOME"] = str(home.folder / "elsewhere")
    assert "use-tabs" in home.polypod("memory", "list").out


def test_a_memory_folder_that_is_a_file_is_said_to_be_one(home: Home) -> None:
    home.env["POLYPOD_MEMORY"] = str(home.write("file", ""))
    refused = home.polypod("memory")
    assert (refused.code, refused.out) == (2, "")
    assert "file is not a folder" in refused.err
    memory = "[memory]\nextract_threshold = 1\nconsolidate_files = 1\n"
    home.write("pod.toml", f'[model]\nscheme = "offline"\n{memory}')
    ran = home.polypod("run", "Please remember the harbour.", "--manifest", "pod.toml")
    assert ran.code == 0
    assert "memory job failed: cannot use" in ran.err
    assert "a file is where a folder is needed" in ran.err


def test_what_is_said_at_the_terminal_becomes_a_note(home: Home) -> None:
    memory = "[memory]\nextract_threshold = 1\nconsolidate_files = 1\n"
    manifest = home.write("pod.toml", f'[pod]\nname = "p"\n[model]\nscheme = "offline"\n{memory}')
    assert home.polypod("run", "Please remember the harbour.", "--manifest", str(manifest)).code == 0
    found = home.polypod("memory", "search", "harbour", "--json").lines
    assert found
    assert not found[0]["staged"]
    assert "ConsolidateDone" in home.polypod("log", home.session(), "--json").out


def test_a_run_at_the_terminal_is_brought_what_memory_holds(home: Home) -> None:
    manifest = home.write(
        "pod.toml", '[pod]\nname = "p"\n[model]\nscheme = "offline"\n[memory]\nrecall_tokens = 300\n'
    )
    assert home.polypod("run", "say hello to the parser", "--manifest", str(manifest)).code == 0
    log = home.polypod("log", home.session(), "--json").out
    assert "[Relevant memory]" in log
    assert "knowledge/the-parser.md" in log
