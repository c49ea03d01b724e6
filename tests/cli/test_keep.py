"""Sessions kept sound, moved and let go, from the command line."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from command_kit import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.write("a.txt", "one two three\n")
    home.run("count words in a.txt")
    return home


def test_a_fork_goes_on_by_itself(home: Home) -> None:
    session = home.session()
    branch = home.polypod("fork", session[:30]).out.strip()
    assert branch != session
    assert home.polypod("resume", branch, "read a.txt").code == 0
    [shown] = home.polypod("show", branch, "--json").lines
    assert shown["parent"]["session_id"] == session
    refused = home.polypod("fork", session, "--at", "00" * 32)
    assert refused.code != 0
    assert "no entry with hash" in refused.err


def test_a_session_moves_to_another_store_with_its_hashes(home: Home, tmp_path: Path) -> None:
    session = home.session()
    file = tmp_path / "session.jsonl"
    assert home.polypod("export", session, str(file)).code == 0
    other = f"jsonl:{tmp_path / 'other'}"
    assert home.polypod("import", str(file), "--store", other).out.strip() == session
    there = home.polypod("log", session, "--json", "--store", other).lines
    assert there == home.polypod("log", session, "--json").lines
    again = home.polypod("export", session, str(file))
    assert again.code != 0
    assert "Traceback" not in again.err


def test_fsck_finds_a_broken_chain_and_forks_what_is_sound(home: Home) -> None:
    assert home.polypod("fsck").code == 0
    [database] = home.state.rglob("*.db")
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE entries SET body = replace(body, 'three', 'four') WHERE n = 4")
        connection.execute("UPDATE entries SET body = body || ' ' WHERE n = 4")
    connection.close()
    found = home.polypod("fsck", "--json")
    assert found.code == 1
    assert [(line["kind"], line["seq"]) for line in found.lines] == [("broken", 4)]
    mended = home.polypod("fsck", "--repair")
    assert mended.code == 1
    branch = mended.out.strip()
    assert home.polypod("resume", branch, "count words in a.txt").code == 0


def test_gc_lets_go_of_what_is_old_and_wants_to_be_told_what(home: Home) -> None:
    session = home.session()
    assert home.polypod("gc", "--older-than", "1h").out == ""
    assert home.polypod("gc").code == 2
    assert home.polypod("gc", "--older-than", "soon").code == 2
    assert home.polypod("gc", "--older-than", "0s").out.strip() == session
    assert home.polypod("ps", "--json").out == ""


def test_what_is_no_export_is_refused(home: Home, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage"
    garbage.write_text(json.dumps({"not": "a session"}) + "\n")
    refused = home.polypod("import", str(garbage))
    assert refused.code != 0
    assert "no exported session" in refused.err


def test_a_history_is_folded_by_hand_and_goes_on(home: Home) -> None:
    session = home.session()
    done = home.polypod("compact", session, "--retain", "0", "--model", "offline")
    assert done.code == 0, done.err
    assert done.out.strip() != session
    assert "tokens before" in done.err
    assert home.polypod("resume", session, "count words in a.txt", "--model", "offline").code == 0
    [shown] = home.polypod("show", done.out.strip(), "--json").lines
    assert shown["parent"]["kind"] == "compacted_from"
