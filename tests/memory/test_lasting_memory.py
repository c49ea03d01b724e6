"""The memory folder: files that people own, an index that is only a cache, and a ledger that outlives a crash."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_kit import all_notes, memory_in, put, put_note, staged

from actors.llm.scripted import ScriptedClient, call, say
from actors.memory.atomic_files import write_whole
from actors.memory.batch import Consolidation
from actors.memory.findings import Decision, Extracted
from actors.memory.lease import Lease
from actors.memory.ledger import Ledger, read_ledger, write_ledger
from actors.memory.note_index import VERSION, search
from actors.memory.notes_draft import Change
from actors.memory.notes_folder import NotesFolder
from actors.memory.staging import Staged, newest_readings, read_staged, stage, waiting
from actors.system import PodSystem
from protocol.errors import ManifestError
from protocol.manifest import MemorySection, PodManifest

ONE = MemorySection(consolidate_files=1)
#: What no JSON reader goes through, and a holder that no file can be called after.
DEEP = '{"x":' + "[" * 10_000 + "]" * 10_000 + "}"
NO_NAME = '{"writer":"\\u0000","pid":1,"host":"h","pod":"p","since":1.0}'


@pytest.fixture
def memory(tmp_path: Path) -> NotesFolder:
    return memory_in(tmp_path)


def titles(memory: NotesFolder, query: str, **options: object) -> list[str]:
    return [hit.title for hit in search(memory, query, **options)]  # type: ignore[arg-type]


# -- search --------------------------------------------------------------------------------------


def test_a_search_finds_notes_by_their_words_those_that_fit_best_first(memory: NotesFolder) -> None:
    put_note(memory, "Build times", "- the linker is slow, and tabs are not to blame")
    put_note(memory, "Tabs", "- use tabs", kind="decisions")
    assert titles(memory, "what about TABS?") == ["Tabs", "Build times"]
    assert titles(memory, "tabs", kind="knowledge") == ["Build times"]
    assert titles(memory, "tabs", limit=1) == ["Tabs"]
    assert titles(memory, "linking") == ["Build times"]
    (hit,) = search(memory, "linker")
    assert (hit.kind, hit.path, hit.staged) == ("knowledge", "knowledge/build-times.md", False)
    assert "linker is slow" in hit.snippet


def test_what_people_edit_add_and_delete_is_found_at_the_next_search(memory: NotesFolder) -> None:
    path = put_note(memory, "Tabs", "- use tabs")
    assert titles(memory, "tabs") == ["Tabs"]
    path.write_text(path.read_text().replace("tabs", "pipes").replace("Tabs", "Pipes"))
    assert titles(memory, "tabs") == []
    assert titles(memory, "pipes") == ["Pipes"]
    (memory.folder / "requests").mkdir()
    (memory.folder / "requests" / "by-hand.md").write_text("Mind the pipes.")
    assert sorted(titles(memory, "pipes")) == ["Pipes", "by hand"]
    path.unlink()
    assert titles(memory, "pipes") == ["by hand"]


def test_what_is_staged_is_found_before_it_is_worked_in(memory: NotesFolder) -> None:
    put(memory, "Use tabs")
    (hit,) = search(memory, "tabs")
    assert hit.staged
    assert hit.kind == "decisions"
    write_ledger(memory, Ledger(consumed=(hit.path.removeprefix("staging/").removesuffix(".json"),)))
    assert search(memory, "tabs") == []


@pytest.mark.parametrize("harm", ["missing", "garbage", "cut", "later version"])
def test_an_index_that_is_missing_damaged_or_of_another_version_is_made_anew(
    memory: NotesFolder, harm: str
) -> None:
    put_note(memory, "Tabs", "- use tabs")
    assert titles(memory, "tabs") == ["Tabs"]
    index = memory.machinery / "index.db"
    if harm == "missing":
        index.unlink()
    elif harm == "garbage":
        index.write_bytes(b"\xff" * 8192)
    elif harm == "cut":
        os.truncate(index, 5000)
    else:
        with sqlite3.connect(index) as connection:
            connection.execute(f"PRAGMA user_version = {VERSION + 1}")
        connection.close()
    put_note(memory, "More tabs", "- yes")
    assert sorted(titles(memory, "tabs")) == ["More tabs", "Tabs"]
    with sqlite3.connect(index) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    connection.close()


def test_where_there_can_be_no_index_the_files_are_read(memory: NotesFolder) -> None:
    put_note(memory, "Tabs", "- use tabs")
    put_note(memory, "Build", "- tabs")
    memory.machinery.write_text("a file in the way")
    assert titles(memory, "TABS") == ["Tabs", "Build"]
    assert titles(memory, "tabs", kind="summary") == []


def test_a_pipe_in_the_place_of_a_note_is_passed_over(memory: NotesFolder) -> None:
    """Whoever opens a pipe waits for somebody to write to it."""
    put_note(memory, "Tabs", "- use tabs")
    os.mkfifo(memory.folder / "knowledge" / "pipe.md")
    assert titles(memory, "tabs") == ["Tabs"]
    assert memory.note("knowledge/pipe.md") is None


def test_a_folder_that_is_not_there_holds_nothing_and_is_not_made(memory: NotesFolder) -> None:
    assert search(memory, "tabs") == []
    assert memory.notes() == {}
    assert not memory.folder.exists()


@given(query=st.text(max_size=40))
def test_no_query_is_too_odd(tmp_path_factory: pytest.TempPathFactory, query: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "odd"
    memory = NotesFolder(folder)
    if not folder.exists():
        put_note(memory, "Tabs", "- use tabs")
    assert len(search(memory, query)) <= 1


@pytest.mark.parametrize(
    "query", ['"', "tabs AND", "NEAR(", "tabs*", "title:tabs", "-tabs", "tabs' OR 1", "\x00tabs", "(" * 99]
)
def test_the_syntax_of_the_index_is_only_words(memory: NotesFolder, query: str) -> None:
    put_note(memory, "Tabs", "- use tabs and a title")
    assert titles(memory, query) == (["Tabs"] if "tabs" in query or "AND" in query else [])


# -- files ---------------------------------------------------------------------------------------


def test_what_is_kept_is_its_owners_alone(memory: NotesFolder) -> None:
    put(memory)
    consolidated(memory)
    search(memory, "tabs")
    for path in [memory.folder, *memory.folder.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_secrets_are_taken_out_text_by_text(memory: NotesFolder) -> None:
    found = Extracted((Decision("see https://u:abc", ("foo@bar",), "-----BEGIN PRIVATE KEY-----\nx"),))
    path = stage(memory.staging, Staged("s", 0, 1, found))
    assert read_staged(path).found.decisions[0].options == ("foo@bar",)
    assert "PRIVATE KEY" not in path.read_text()


def test_a_stretch_that_was_read_twice_counts_once() -> None:
    one = Staged("s", 0, 2, Extracted((Decision("a"),)))
    more = Staged("s", 0, 4, Extracted((Decision("b"),)))
    other = Staged("s", 4, 6, Extracted((Decision("c"),)))
    assert newest_readings([one, more, other]) == [more, other]
    assert newest_readings([more, one, other]) == [more, other]


# -- a folder that is others' too ----------------------------------------------------------------


def test_files_whose_names_are_no_text_stand_in_nobodys_way(memory: NotesFolder) -> None:
    put_note(memory, "Use tabs", "tabs are good")
    put(memory, "tabs for all")
    for folder, name in (("knowledge", b"gr\xf6\xdfe.md"), ("staging", b"gr\xf6\xdfe.json")):
        (memory.folder / folder / os.fsdecode(name)).write_text("tabs")
    assert sorted(titles(memory, "tabs")) == ["Use tabs", "tabs for all"]


def test_a_staged_file_that_another_takes_away_this_moment_is_not_waited_for(
    memory: NotesFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sorted([put(memory, "a"), put(memory, "b")])
    look = Path.lstat

    def taken(path: Path) -> os.stat_result:
        first.unlink(missing_ok=True)
        return look(path)

    monkeypatch.setattr(Path, "lstat", taken)
    assert [file.path for file in waiting(memory.staging)] == [second]


def test_what_people_wrote_in_another_encoding_is_not_lost(memory: NotesFolder) -> None:
    note = memory.folder / "decisions" / "use-tabs.md"
    note.parent.mkdir(parents=True)
    note.write_bytes("- für Größen".encode("latin-1"))
    put(memory, "Use tabs")
    assert consolidated(memory) == 1
    assert "- für Größen" in all_notes(memory)["decisions/use-tabs.md"]


def test_a_note_takes_the_place_of_a_link_and_says_nothing_of_where_that_led(memory: NotesFolder) -> None:
    outside = memory.folder.parent / "outside.md"
    outside.parent.mkdir(exist_ok=True)
    outside.write_text("of another")
    link = memory.folder / "decisions" / "use-tabs.md"
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    assert titles(memory, "another") == []
    put(memory, "Use tabs")
    assert consolidated(memory) == 1
    assert "of another" not in all_notes(memory)["decisions/use-tabs.md"]
    assert outside.read_text() == "of another"


@pytest.mark.parametrize(
    "ledger",
    [
        Ledger(changes=(Change("../outside.md", None, "written"),)),
        Ledger(changes=(Change("decisions/../../outside.md", None, "written"),)),
        Ledger(consumed=("../../outside",)),
    ],
)
def test_a_ledger_that_came_with_the_folder_leads_nowhere_else(memory: NotesFolder, ledger: Ledger) -> None:
    memory.folder.mkdir(parents=True)
    outside = memory.folder.parent / "outside.json"
    outside.write_text("of another")
    write_ledger(memory, ledger)
    put(memory)
    consolidated(memory)
    assert [path.name for path in memory.folder.parent.iterdir() if path != memory.folder] == ["outside.json"]
    assert list(all_notes(memory)) == ["decisions/use-tabs.md"]


def test_an_index_that_another_renews_is_left_to_it(
    memory: NotesFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.memory.note_index._PATIENCE", 0.01)
    put_note(memory, "Use tabs", "tabs are good")
    assert titles(memory, "tabs") == ["Use tabs"]
    index = memory.machinery / "index.db"
    made = index.stat().st_ino
    with contextlib.closing(sqlite3.connect(index, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        put_note(memory, "More", "tabs again")
        assert sorted(titles(memory, "tabs")) == ["More", "Use tabs"]
    assert index.stat().st_ino == made


# -- consolidation -------------------------------------------------------------------------------


def consolidated(memory: NotesFolder, section: MemorySection = ONE, *, automatic: bool = False) -> int | None:
    """A consolidation without a model; how many notes changed."""
    work = Consolidation(memory, section, "p", clock=lambda: 0.0)
    try:
        batch = work.begin(automatic=automatic)
        if batch is None:
            return None
        for record in batch.records:
            for note in record.notes("1970-01-01"):
                batch.draft.add(note)
        return work.commit(batch)
    finally:
        work.release()


@pytest.mark.parametrize(
    ("section", "due"),
    [
        (MemorySection(), False),
        (MemorySection(consolidate_files=2), True),
        (MemorySection(consolidate_files=3), False),
        (MemorySection(consolidate_files=3, consolidate_bytes=200), True),
        (MemorySection(consolidate_bytes=100_000), False),
    ],
)
def test_a_consolidation_is_due_by_files_or_bytes_and_off_at_zero(
    memory: NotesFolder, section: MemorySection, due: bool
) -> None:
    put(memory, "a", start=0)
    put(memory, "b", start=2)
    assert (consolidated(memory, section) is not None) is due


def test_success_deletes_only_what_was_consumed(memory: NotesFolder) -> None:
    put(memory, "a")
    work = Consolidation(memory, ONE, "p")
    batch = work.begin(automatic=False)
    assert batch is not None
    late = put(memory, "b", start=2)
    work.commit(batch)
    work.release()
    assert staged(memory) == [late.name]


def test_a_cleanup_that_fails_does_not_have_the_same_files_consolidated_again(memory: NotesFolder) -> None:
    path = put(memory, "a")
    content = path.read_bytes()
    work = Consolidation(memory, ONE, "p")
    batch = work.begin(automatic=False)
    assert batch is not None
    path.unlink()
    path.mkdir()  # what cannot be unlinked
    work.commit(batch)
    work.release()
    assert read_ledger(memory).consumed == (path.stem,)
    path.rmdir()
    path.write_bytes(content)  # and is there again
    assert consolidated(memory) is None
    assert staged(memory) == []  # this time it could be deleted
    assert read_ledger(memory) == Ledger()


def test_a_ledger_that_was_left_is_carried_out_once(memory: NotesFolder) -> None:
    path = put(memory, "a")
    work = Consolidation(memory, ONE, "p")
    batch = work.begin(automatic=False)
    assert batch is not None
    batch.draft.write("decisions", "A", "- a")
    write_ledger(memory, Ledger((path.stem,), tuple(batch.draft.changes())))  # and the process dies
    work.release()
    assert consolidated(memory) is None
    assert all_notes(memory) == {"decisions/a.md": "- a"}
    assert staged(memory) == []
    assert consolidated(memory) is None


def test_a_staging_folder_that_people_deleted_is_no_hindrance(memory: NotesFolder) -> None:
    memory.machinery.mkdir(parents=True)
    write_ledger(memory, Ledger(("1", "2")))
    assert consolidated(memory) is None
    assert read_ledger(memory) == Ledger()


def test_what_cannot_be_written_leaves_all_as_it_was(memory: NotesFolder) -> None:
    put(memory, "a")
    (memory.machinery / "ledger.json" / "x").mkdir(parents=True)
    with pytest.raises(OSError, match="irectory"):
        consolidated(memory)
    assert len(staged(memory)) == 1
    assert all_notes(memory) == {}


def test_a_damaged_staged_file_is_set_aside_and_reported(memory: NotesFolder) -> None:
    put(memory, "a")
    (memory.staging / "0.json").write_text("{")
    work = Consolidation(memory, ONE, "p")
    batch = work.begin(automatic=False)
    work.release()
    assert batch is not None
    assert len(batch.files) == 1
    (alert,) = work.alerts
    assert "0.json is not a staged extraction" in alert
    assert "set aside as 0.json.damaged" in alert
    assert (memory.staging / "0.json.damaged").exists()


@pytest.mark.parametrize("damage", ["no", DEEP])
def test_a_damaged_ledger_is_set_aside_and_reported(memory: NotesFolder, damage: str) -> None:
    put(memory, "a")
    memory.machinery.mkdir()
    (memory.machinery / "ledger.json").write_text(damage)
    work = Consolidation(memory, ONE, "p")
    assert work.begin(automatic=False) is not None
    work.release()
    assert "is not a ledger" in work.alerts[0]
    assert len(search(memory, "a")) == 1


def test_attempts_that_came_to_nothing_are_counted_durably_and_then_no_model_is_asked(
    memory: NotesFolder,
) -> None:
    put(memory, "a")
    reported = []
    for _ in range(4):
        work = Consolidation(memory, ONE, "p")  # as a process would that died in it
        batch = work.begin(automatic=False)
        work.release()
        assert batch is not None
        reported.append(batch.mechanical)
    assert reported == [False, False, False, True]
    assert consolidated(memory) == 1
    assert read_ledger(memory) == Ledger()


def test_automatic_consolidations_are_left_out_after_one_that_failed(memory: NotesFolder) -> None:
    put(memory, "a")
    left_out = 0
    for failures in range(2):
        work = Consolidation(memory, ONE, "p")
        assert work.begin(automatic=False) is not None
        work.withdraw()
        work.release()
        for _ in range(2**failures):
            left_out += 1
            assert consolidated(memory, automatic=True) is None
    assert left_out == 3
    assert consolidated(memory, automatic=True) == 1


def test_a_model_is_given_no_more_than_fits_its_context(memory: NotesFolder) -> None:
    for number in range(6):
        put(memory, f"{number} " + "x" * 400, start=number)
    work = Consolidation(memory, ONE, "p", context_window=1200)
    batch = work.begin(automatic=False)
    work.release()
    assert batch is not None
    assert 0 < len(batch.files) < 6
    assert not batch.mechanical


def test_finds_too_long_for_a_model_are_worked_in_without_one(memory: NotesFolder) -> None:
    put(memory, "x" * 9000)
    work = Consolidation(memory, ONE, "p", context_window=1200)
    batch = work.begin(automatic=False)
    assert batch is not None
    assert batch.mechanical
    assert work.commit(batch) == 1
    work.release()
    assert "x" * 9000 in next(iter(all_notes(memory).values()))


# -- the lease -----------------------------------------------------------------------------------


def test_two_pods_of_one_process_do_not_consolidate_one_folder_at_once(memory: NotesFolder) -> None:
    first = Lease.acquire(memory.machinery, "a")
    assert first is not None
    assert Lease.acquire(memory.machinery, "b") is None
    first.release()
    first.release()
    second = Lease.acquire(memory.machinery, "b")
    assert second is not None
    second.release()
    assert not (memory.machinery / "lease.json").exists()


def test_of_many_who_want_the_lease_at_the_same_moment_one_gets_it(memory: NotesFolder) -> None:
    at_once = threading.Barrier(12)

    def take(number: int) -> Lease | None:
        at_once.wait()
        return Lease.acquire(memory.machinery, f"p{number}")

    with ThreadPoolExecutor(12) as threads:
        taken = [lease for lease in threads.map(take, range(12)) if lease is not None]
    assert len(taken) == 1
    taken[0].release()


@pytest.mark.parametrize("damage", ["{", DEEP, NO_NAME])
def test_a_lease_that_nobody_can_read_is_taken_over(memory: NotesFolder, damage: str) -> None:
    memory.machinery.mkdir(parents=True)
    (memory.machinery / "lease.json").write_text(damage)
    lease = Lease.acquire(memory.machinery, "a")
    assert lease is not None
    assert (lease.holding.pid, lease.holding.pod) == (os.getpid(), "a")
    lease.release()


def test_a_pipe_in_the_place_of_a_draft_gives_way_to_it(memory: NotesFolder) -> None:
    put_note(memory, "Tabs", "- use tabs")
    path = memory.folder / "knowledge" / "tabs.md"
    os.mkfifo(path.with_name(".tabs.md.part"))
    write_whole(path, "new")
    assert path.read_text() == "new"


def test_what_is_staged_after_the_clock_went_back_is_still_the_last_word(memory: NotesFolder) -> None:
    ids = []
    for number, port in enumerate(("8080", "9090", "8080")):
        path = put(memory, f"The port is {port}", start=number, end=number + 1)
        if number == 0:  # as if it had been staged while the clock was an hour ahead
            ahead = uuid.UUID(path.stem).int + (3_600_000 << 80)
            path = path.rename(path.with_name(f"{uuid.UUID(int=ahead)}.json"))
        ids.append(path.stem)
    assert [file.id for file in waiting(memory.staging)] == ids
    assert all(file.date for file in waiting(memory.staging))


async def test_each_pod_may_have_a_memory_of_its_own(tmp_path: Path) -> None:
    ours, theirs = memory_in(tmp_path), NotesFolder(tmp_path / "project" / "notes")
    put_note(ours, "Parser", "- the parser of the system", kind="summary")
    put_note(theirs, "Parser", "- the parser of the project", kind="summary")
    manifest = tmp_path / "project" / "pod.toml"
    manifest.write_text(
        '[memory]\nrecall_tokens = 300\nfolder = "notes"\n[tools]\nbuiltin = ["memory"]\n', encoding="utf-8"
    )
    client = ScriptedClient([call("memory_search", {"query": "parser"}), say("so"), say("so")])
    async with PodSystem(memory=ours.folder) as system:
        pod = await system.spawn(PodManifest.load(manifest), client=client)
        await pod.run("How is the parser?")
        other = await system.spawn(PodManifest.of(recall_tokens=300), client=client)
        await other.run("How is the parser?")
    recalled, found, elsewhere = (
        client.requests[0].items[0],
        client.requests[1].items[-1],
        client.requests[2].items[0],
    )
    assert "of the project" in recalled.text
    assert "of the project" in found.text
    assert "of the system" in elsewhere.text


async def test_what_a_pod_with_a_memory_of_its_own_finds_is_kept_there(tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    manifest = PodManifest.of(extract_threshold=1, memory={"folder": str(folder)})
    found = call("write_extracted", {"decisions": [{"chosen": "use tabs"}]})
    async with PodSystem(memory=tmp_path / "system") as system:
        client = ScriptedClient([say("tabs it is"), found, say("done")])
        pod = await system.spawn(manifest, client=client)
        await pod.run("Use tabs.")
        assert await pod.wait_for_memory_jobs(30)
    assert list(NotesFolder(folder).staging.glob("*"))
    assert not (tmp_path / "system").exists()


def test_a_memory_folder_is_a_folder() -> None:
    with pytest.raises(ManifestError, match=r"memory\.folder"):
        PodManifest.of(memory={"folder": ""})
