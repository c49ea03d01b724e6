"""Sessions kept sound, moved and let go, from the command line."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from command_kit import Home
from msgspec import Raw
from store_kit import change_entry, disk_with_quota, make, small_disk

from actors.sessions.answers import wait
from actors.sessions.chain import chained
from actors.sessions.jsonl.lines import batch_lines, header_line
from actors.sessions.replay import replay
from actors.sessions.sqlite.store import SQLiteStore
from actors.sessions.urls import open_store
from protocol.agents import AgentSpec, opening_of
from protocol.entries import MemoryPointer, SessionOpened
from protocol.manifest import PodManifest
from protocol.scope import Scope
from protocol.wire import encode


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
    assert f"polypod log {session}" in refused.err


@pytest.mark.parametrize("sign", ["…", "..."])
def test_an_id_that_was_shortened_is_taken_as_its_beginning(home: Home, sign: str) -> None:
    session = home.session()
    [shown] = home.polypod("show", session[:30] + sign, "--json").lines
    assert shown["session_id"] == session
    assert home.polypod("show", sign).code == 2
    assert home.polypod("rm", session[:30] + sign).out.strip() == session


def test_a_fork_is_made_at_an_entry_as_log_prints_it(home: Home) -> None:
    session = home.session()
    question = home.polypod("log", session).out.splitlines()[3].split()
    branch = home.polypod("fork", session, "--at", question[2]).out.strip()
    [shown] = home.polypod("show", branch, "--json").lines
    assert shown["parent"]["at_seq"] == 4
    assert "last run   cancelled" in home.polypod("show", branch).out
    assert "forked at 4" in home.polypod("log", session, "--tree").out


def test_the_tree_of_a_session_begins_where_its_parent_is_not_in_the_store(
    home: Home, tmp_path: Path
) -> None:
    branch = home.polypod("fork", home.session()).out.strip()
    home.polypod("export", branch, "branch.jsonl")
    other = f"jsonl:{tmp_path / 'other'}"
    home.polypod("import", "branch.jsonl", "--store", other)
    [root] = home.polypod("log", branch, "--tree", "--store", other).out.splitlines()
    assert branch in root


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
    assert "already exists" in again.err
    assert "never overwrites" in again.err
    again = home.polypod("import", str(file), "--store", other)
    assert again.code != 0
    assert f"already exists in {other}" in again.err


@pytest.mark.parametrize(
    ("place", "why"), [(".", "is a folder"), ("no/session.jsonl", "there is no folder no")]
)
def test_a_place_where_no_export_can_be_is_said_to_be_that(home: Home, place: str, why: str) -> None:
    refused = home.polypod("export", home.session(), place)
    assert refused.code == 1
    assert why in refused.err


def test_fsck_finds_a_broken_chain_and_forks_what_is_sound(home: Home) -> None:
    assert home.polypod("fsck").code == 0
    [database] = home.state.rglob("*.db")
    change_entry(database, 4, b"count", b"weigh")
    found = home.polypod("fsck", "--json")
    assert found.code == 1
    assert [(line["kind"], line["seq"]) for line in found.lines] == [("broken", 4)]
    mended = home.polypod("fsck", "--repair")
    assert mended.code == 0
    branch = mended.out.strip()
    assert home.polypod("fsck").code == 0, "after a repair there is nothing more to find"
    assert list(home.state.rglob("damaged/*.jsonl")), "the damaged session is kept"
    assert home.polypod("rm", branch[:30], branch).out.strip() == branch
    assert home.polypod("rm", branch).code == 2
    branch = home.polypod("run", "count words in a.txt", "--json").lines[-1]["session_id"]
    assert home.polypod("resume", branch, "count words in a.txt").code == 0


def test_gc_lets_go_of_what_is_old_and_wants_to_be_asked_what(home: Home) -> None:
    session = home.session()
    kept = home.polypod("gc", "--older-than", "1h")
    assert (kept.out, kept.err) == ("", "0 sessions deleted\n")
    assert home.polypod("gc").code == 2
    assert home.polypod("gc", "--older-than", "soon").code == 2
    assert home.polypod("gc", "--older-than", "0s").out.strip() == session
    assert home.polypod("ps", "--json").out == ""


def test_what_is_no_export_is_refused(home: Home, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage"
    garbage.write_text(json.dumps({"not": "a session"}) + "\n")
    refused = home.polypod("import", str(garbage))
    assert refused.code != 0
    assert "not an exported session" in refused.err


def test_a_history_is_folded_by_hand_and_goes_on(home: Home) -> None:
    session = home.session()
    done = home.polypod("compact", session, "--retain", "0", "--model", "offline")
    assert done.code == 0, done.err
    assert done.out.strip() != session
    assert re.search(r"about \d{1,3}(,\d{3})* tokens before", done.err)
    assert home.polypod("resume", session, "count words in a.txt", "--model", "offline").code == 0
    [shown] = home.polypod("show", done.out.strip(), "--json").lines
    assert shown["parent"]["kind"] == "compacted_from"


def full_disk(disk: Path, free: int = 0) -> int:
    """Have a disk be full but for so many bytes, or a few more, which are returned."""
    ballast = disk / "ballast"
    with ballast.open("wb", 0) as file:
        for size in 1 << 16, 1 << 12:
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass
            os.sync()  # by then a quota counts what was written
    if free:
        os.truncate(ballast, ballast.stat().st_size - free)
    return shutil.disk_usage(disk).free


def test_on_a_full_disk_sessions_are_listed_exported_and_checked_and_gc_says_what_it_needs(
    home: Home, tmp_path: Path
) -> None:
    """No command could open the store."""
    disk = tmp_path / "disk"
    with small_disk(disk, "1m"):
        store = ("--store", f"sqlite:{disk / 'pods.db'}")
        home.run("hello", *store)
        full_disk(disk)
        [listed] = home.polypod("ps", "--json", *store).lines
        assert home.polypod("export", "last", "exported", *store).code == 0
        assert home.polypod("fsck", *store).code == 0
        assert home.polypod("gc", "--older-than", "0s", "--dry-run", "--json", *store).lines
        for words in (("gc", "--older-than", "0s"), ("rm", listed["session_id"])):
            refused = home.polypod(*words, *store)
            assert refused.code == 1
            assert "free a few MB by other means" in refused.err
        (disk / "ballast").unlink()
        assert home.polypod("gc", "--older-than", "0s", *store).out.strip() == listed["session_id"]


STORES = pytest.mark.parametrize("kind", ["sqlite:{}/pods.db", "jsonl:{}/pods"])


@STORES
def test_with_a_used_up_quota_sessions_are_listed_and_checked_and_errors_name_the_quota(
    home: Home, tmp_path: Path, kind: str
) -> None:
    """A SQLite store could not be opened, since "the disk failed"."""
    with disk_with_quota(tmp_path / "disk", "4m") as disk:
        store = ("--store", kind.format(disk))
        assert home.run("hello", *store).code == 0
        full_disk(disk)
        assert len(home.polypod("ps", "--json", *store).lines) == 1
        assert home.polypod("fsck", *store).code == 0
        refused = home.run("hello", *store)
        assert refused.code == 1
        assert "your disk quota is used up" in refused.err
        assert "free some of your disk quota" in refused.err
        (disk / "ballast").unlink()
        os.sync()
        assert home.run("hello", *store).code == 0
        assert home.polypod("fsck", *store).code == 0


@STORES
def test_gc_of_many_sessions_takes_no_more_space_than_that_of_one(
    home: Home, tmp_path: Path, kind: str
) -> None:
    """On a disk with less space than all of them have, it deleted none."""
    disk = tmp_path / "disk"
    with small_disk(disk, "4m"):
        url = kind.format(disk)
        with contextlib.closing(open_store(url)) as store:
            for number in range(30):
                name = f"s{number}"
                wait(store.create(name, "pod", None, chained([encode("x" * 50_000)]), claim=False))
        room = full_disk(disk, 200_000)
        done = home.polypod("gc", "--older-than", "0s", "--store", url)
        assert done.code == 0, done.err
        assert len(done.out.split()) == 30
        assert home.polypod("fsck", "--store", url).code == 0
        assert shutil.disk_usage(disk).free > room + 1_000_000


def test_gc_gives_the_space_of_what_is_gone_back_to_the_disk(home: Home) -> None:
    [database] = home.state.rglob("*.db")
    store = SQLiteStore(database)
    session = home.session()
    after = store.info(session).head
    store.append(session, after, chained([encode("x" * 500_000)], after=after))
    store.close()
    before = database.stat().st_size
    assert before > 500_000
    assert home.polypod("gc", "--older-than", "0s").out.strip() == session
    assert database.stat().st_size < before / 4


def test_a_fork_takes_over_how_far_memory_has_read(home: Home) -> None:
    session = home.session()
    [database] = home.state.rglob("*.db")
    store = SQLiteStore(database)
    after = store.info(session).head
    pointer = encode(MemoryPointer(seq=after.seq + 1, at=0.0, pointer=2))
    store.append(session, after, chained([pointer], after=after))
    store.close()
    branch = home.polypod("fork", session).out.strip()
    store = SQLiteStore(database)
    assert replay(store.read(branch)).pointer == 2
    store.close()


def test_an_id_in_a_store_of_somebody_else_is_printed_as_one_line_that_no_terminal_obeys(home: Home) -> None:
    with contextlib.closing(open_store(f"jsonl:{home.folder / 'theirs'}")) as theirs:
        for name in ("one\nlast", "\x1b]0;mine\x07"):
            make(theirs, name, "x", claim=False)
    for command in (("ps",), ("rm", "\x1b]0;mine\x07"), ("gc", "--older-than", "0s")):
        done = home.polypod(*command, "--store", "jsonl:theirs")
        assert done.code == 0
        assert "\x1b" not in done.out
        assert "one\n" not in done.out
        assert "\\x1b]0;mine" in done.out or "one\\nlast" in done.out


@pytest.mark.parametrize(
    ("opened", "brings"),
    [
        (
            PodManifest.of(
                mcp=[{"name": "theirs", "command": ["sh", "-c", "touch \x1b"]}],
                modules=["/theirs.py"],
                scope=Scope.writable("/"),
            ),
            ["MCP server theirs: sh -c 'touch \\x1b'", "tools of /theirs.py", "write /"],
        ),
        (
            AgentSpec(id="theirs-1", task="x", runner=("sh", "-c", "id"), cwd="/", root="/r", created_at=1.0),
            ["agent theirs-1, runner sh -c id, in /"],
        ),
    ],
    ids=["pod", "agent"],
)
def test_an_import_says_what_the_session_starts_and_touches_once_it_is_continued(
    home: Home, opened: PodManifest | AgentSpec, brings: list[str]
) -> None:
    manifest = opening_of(opened) if isinstance(opened, AgentSpec) else Raw(encode(opened))
    first = SessionOpened(session_id="s", seq=1, at=1.0, pod="p", manifest=manifest)
    exported = header_line("s", "p", 1.0, None) + batch_lines(chained([encode(first)]))
    done = home.polypod("import", str(home.write("s.jsonl", exported.decode())))
    assert (done.code, done.out) == (0, "s\n")
    assert [line.strip() for line in done.err.splitlines()[1:]] == brings
