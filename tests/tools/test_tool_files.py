"""The file tools do what they say, at their edges too, and never outside the scope."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
from effort import times
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.tools.base import ToolContext
from actors.tools.builtin import BUILTIN_GROUPS, builtin
from actors.tools.filesystem.files import read_file
from actors.tools.scope import resolved
from protocol.errors import ManifestError, ToolCancelled
from protocol.scope import Rule, Scope

ALL = ("read_file", "list_files", "count_words", "write_file", "edit_file")


def names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_a_file_is_read_as_it_is(pwd, use):
    (pwd / "a").write_text("one\ntwo\n")
    assert use("read_file", path="a").text == "one\ntwo\n"


def test_some_lines_are_read_and_the_rest_is_announced(pwd, use):
    (pwd / "a").write_text("".join(f"{n}\n" for n in range(1, 11)))
    assert (
        use("read_file", path="a", offset=3, limit=2).text
        == "3\n4\n[more lines follow; go on with offset=5]\n"
    )
    assert use("read_file", path="a", offset=9, limit=2).text == "9\n10\n"


def test_reading_stops_at_a_line_before_the_output_cap_would_cut(pwd, use):
    (pwd / "a").write_text("x" * 99 + "\n" + ("y" * 99 + "\n") * 20)
    text = use("read_file", path="a", output_cap=1000).text
    assert text.endswith("y\n[more lines follow; go on with offset=9]\n")
    assert "cut" not in text


def test_an_endless_line_is_cut_and_the_next_one_still_comes(pwd, use):
    (pwd / "a").write_bytes(b"x" * 300_000 + b"\nnext")
    first, second = use("read_file", path="a").text.splitlines()
    assert first == "x" * 2000 + " [… cut after 2,000 characters]"
    assert second == "next"


def test_foreign_line_ends_and_bytes_are_shown_as_well_as_can_be(pwd, use):
    (pwd / "a").write_bytes(b"a\r\ncaf\xe9")
    assert use("read_file", path="a").text == "a\ncaf�\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"path": "no"}, "there is no such file"),
        ({"path": "folder"}, "it is a directory"),
        ({"path": "."}, "it is a directory"),
        ({"path": "a/b"}, "not a directory"),
        ({"path": "binary"}, "binary is a binary file of 5 bytes, not text"),
        ({"path": "pipe"}, "not a regular file"),
        ({"path": "a", "offset": 4}, "a has only 1 lines"),
        ({"path": "a", "limit": 0}, "limit: expected"),
        ({"path": "x" * 300}, "the name is too long"),
        ({"path": "../other"}, "not allowed to read '../other'"),
        ({"path": "link"}, "not allowed to read 'link'"),
        ({"path": "/"}, "not allowed to read '/'"),
    ],
)
def test_what_cannot_be_read_is_refused_in_plain_words(pwd, use, arguments, words):
    (pwd / "a").write_text("a")
    (pwd / "folder").mkdir()
    (pwd / "binary").write_bytes(b"\x7fE\0LF")
    os.mkfifo(pwd / "pipe")
    (pwd.parent / "other").write_text("secret")
    (pwd / "link").symlink_to("../other")
    result = use("read_file", **arguments)
    assert result.is_error
    assert words in result.text
    assert "secret" not in result.text


def test_the_root_itself_is_a_directory_like_any(use):
    result = use("read_file", path="/", scope=Scope.readable("/"))
    assert "it is a directory" in result.text
    assert "etc/" in use("list_files", path="/", scope=Scope.readable("/")).text.splitlines()


def test_an_empty_file_says_so(pwd, use):
    (pwd / "a").touch()
    assert use("read_file", path="a").text == "[a is empty]"


def test_a_listing_has_directories_first_sizes_and_no_hidden_names(pwd, use):
    (pwd / "b.txt").write_text("x" * 1234)
    (pwd / "z").mkdir()
    (pwd / ".hidden").touch()
    (pwd / "inner").symlink_to("b.txt")
    (pwd / "outer").symlink_to("/etc/passwd")
    os.mkfifo(pwd / "pipe")
    lines = ["z/", "b.txt (1,234 bytes)", f"inner -> {pwd}/b.txt", "pipe"]
    assert use("list_files").text.splitlines() == lines
    assert ".hidden (0 bytes)" in use("list_files", hidden=True).text


def test_a_listing_shows_only_what_the_scope_permits_and_is_bounded(pwd, use):
    for n in range(5):
        (pwd / f"f{n}").touch()
    scope = Scope(allow=(Rule(str(pwd)),), deny=(Rule(f"{pwd}/f0"), Rule(f"{pwd}/f1")))
    text = use("list_files", scope=scope, limit=2).text
    assert text == "f2 (0 bytes)\nf3 (0 bytes)\n[more entries follow; raise limit or use find_files]"


def test_an_empty_or_missing_directory_is_reported_as_what_it_is(pwd, use):
    (pwd / "file").touch()
    (pwd / "empty").mkdir()
    assert use("list_files", path="empty").text == "empty has no entries that can be shown"
    assert "no such" in use("list_files", path="no").text
    assert "is not a directory" in use("list_files", path="file").text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=times(20))
@given(st.text(st.sampled_from(["a", "b", " ", "\n", "\t", "é"])))
def test_words_lines_and_bytes_are_counted_as_python_would(pwd, use, text):
    (pwd / "a").write_bytes(text.encode())
    lines = text.count("\n") + (not text.endswith("\n") if text else 0)
    expected = f"a: {len(text.split())} words, {lines} lines, {len(text.encode())} bytes"
    assert use("count_words", path="a").text == expected


def test_words_are_counted_once_over_the_edges_of_reading(pwd, use):
    (pwd / "a").write_bytes(b"word " * 300_000 + b"x" * 200_000 + b" end")
    assert use("count_words", path="a").text == "a: 300,002 words, 1 lines, 1,700,004 bytes"


def test_a_file_is_written_with_its_missing_directories(pwd, use):
    assert (
        use("write_file", path="new/deep/a", content="é").text == "wrote 2 bytes to new/deep/a (a new file)"
    )
    assert (pwd / "new/deep/a").read_text() == "é"
    assert use("write_file", path="new/deep/a", content="").text.endswith("(it had 2 bytes before)")


def test_writing_keeps_the_mode_and_leaves_no_temporary_file(pwd, use):
    (pwd / "a").write_text("old")
    (pwd / "a").chmod(0o750)
    use("write_file", path="a", content="new")
    assert (pwd / "a").read_text() == "new"
    assert stat.S_IMODE((pwd / "a").stat().st_mode) == 0o750
    assert names_in(pwd) == ["a"]


def test_a_new_file_has_the_mode_the_process_gives(pwd, use):
    umask = os.umask(0o027)
    try:
        use("write_file", path="a", content="x")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((pwd / "a").stat().st_mode) == 0o640


def test_a_reader_of_the_old_file_keeps_the_old_content(pwd, use):
    (pwd / "a").write_text("old")
    with (pwd / "a").open() as reader:
        use("write_file", path="a", content="new")
        assert reader.read() == "old"


def test_appending_adds_to_the_end_or_makes_the_file(pwd, use):
    use("write_file", path="notes", content="one\n", append=True)
    assert use("write_file", path="notes", content="two\n", append=True).text == "added 4 bytes to notes"
    assert (pwd / "notes").read_text() == "one\ntwo\n"


@pytest.mark.parametrize("append", [True, False])
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("../other", "not allowed to write"),
        ("link", "not allowed to write"),
        ("dangling", "not allowed to write"),
        ("folder", "it is a directory"),
        ("", "the path is empty"),
        ("a\0b", "NUL byte"),
        ("file/x", "not a directory"),
    ],
)
def test_what_cannot_be_written_is_refused_and_nothing_is_changed(pwd, use, path, words, append):
    (pwd / "folder").mkdir()
    (pwd / "file").touch()
    (pwd.parent / "other").write_text("secret")
    (pwd / "link").symlink_to("../other")
    (pwd / "dangling").symlink_to("../nothing")
    result = use("write_file", path=path, content="evil", append=append)
    assert result.is_error
    assert words in result.text
    assert (pwd.parent / "other").read_text() == "secret"
    assert names_in(pwd.parent) == ["other", "pod"]


def test_a_directorys_name_makes_no_file(pwd, use):
    for name in ("new/", "new/."):
        assert "names a directory" in use("write_file", path=name, content="x").text
    assert not (pwd / "new").exists()


def test_appending_to_a_file_with_other_names_leaves_those_alone(pwd, use):
    outside = pwd.parent / "outside"
    outside.write_text("a\n")
    (pwd / "in").hardlink_to(outside)
    assert not use("write_file", path="in", content="b\n", append=True).is_error
    assert (pwd / "in").read_text() == "a\nb\n"
    assert outside.read_text() == "a\n"


def test_a_file_with_other_names_is_not_copied_however_large_it_is(pwd, use):
    with (pwd / "huge").open("wb") as file:
        file.truncate(1 << 40)
    (pwd / "in").hardlink_to(pwd / "huge")
    result = use("write_file", path="in", content="b\n", append=True)
    assert "has other names (hard links), and its 1,099,511,627,776 bytes are too many" in result.text


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="what this process has read is counted there")
def test_a_read_that_is_cancelled_ends_within_a_monstrous_line(pwd):
    with (pwd / "a").open("wb") as file:
        file.write(b"a" * 9000)
        file.truncate(1 << 30)
    ctx = ToolContext(pwd=pwd, scope=resolved(Scope.readable(pwd)))
    ctx.cancel.set()
    before = read_by_this_process()
    with pytest.raises(ToolCancelled):
        read_file("a", ctx=ctx)
    assert read_by_this_process() - before < 1 << 20


def read_by_this_process() -> int:
    return int(Path("/proc/self/io").read_text().partition("rchar: ")[2].split()[0])


def test_a_program_that_was_rewritten_no_longer_runs_with_its_owners_rights(pwd, use):
    (pwd / "program").write_text("old")
    (pwd / "program").chmod(0o6755)
    assert not use("write_file", path="program", content="new").is_error
    assert stat.S_IMODE((pwd / "program").stat().st_mode) == 0o755


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that fails while it is read")
def test_a_file_that_fails_while_it_is_read_is_reported_and_passed_over_by_a_search(pwd, use):
    scope = Scope.readable("/proc")
    result = use("read_file", path="/proc/self/mem", scope=scope)
    assert result.text.endswith("/mem: input/output error")
    found = use("grep", pattern="x", path="/proc/self/mem", scope=scope)
    assert "1 files were skipped" in found.text


def test_a_pipe_is_not_replaced(pwd, use):
    os.mkfifo(pwd / "pipe")
    assert "not a regular file" in use("write_file", path="pipe", content="x").text
    assert use("write_file", path="pipe", content="x", append=True).is_error
    assert stat.S_ISFIFO((pwd / "pipe").stat().st_mode)


def test_directories_are_made_inside_the_scope_alone(pwd, use):
    scope = Scope.writable(pwd / "a" / "b")
    result = use("write_file", path="a/b/c", content="x", scope=scope)
    assert "the scope does not allow creating it" in result.text
    (pwd / "a").mkdir()
    assert not use("write_file", path="a/b/c/d", content="x", scope=scope).is_error


def test_reading_rights_do_not_let_anyone_write(pwd, use):
    (pwd / "a").write_text("one")
    for name, arguments in (("write_file", {"content": "x"}), ("edit_file", {"old": "one", "new": "two"})):
        result = use(name, path="a", scope=Scope.readable(pwd), **arguments)
        assert "not allowed to write 'a'" in result.text
        assert "(you may read it)" in result.text
    assert (pwd / "a").read_text() == "one"


def test_an_edit_shows_what_it_did(pwd, use):
    (pwd / "a").write_text("".join(f"line {n}\n" for n in range(1, 10)))
    result = use("edit_file", path="a", old="line 5", new="line five\nand a half")
    assert result.text == (
        "edited a in 1 place\n@@ line 3 @@\n line 3\n line 4\n-line 5\n+line five\n+and a half\n line 6\n line 7"
    )
    assert (pwd / "a").read_text().splitlines()[4:6] == ["line five", "and a half"]


def test_an_edit_of_all_places_shows_the_first_of_them(pwd, use):
    (pwd / "a").write_text("x\n" * 50)
    result = use("edit_file", path="a", old="x", new="y", replace_all=True)
    assert result.text.startswith("edited a in 50 places\n@@ line 1 @@\n-x\n+y\n x\n x\n@@ line 1 @@")
    assert (pwd / "a").read_text() == "y\n" * 50


def test_an_edit_of_a_long_stretch_shows_a_bounded_diff(pwd, use):
    old = "".join(f"a{n}\n" for n in range(500))
    (pwd / "a").write_text(old)
    assert len(use("edit_file", path="a", old=old, new="b\n").text.splitlines()) == 62


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("", "x", "old is empty"),
        ("one", "one", "the same text"),
        ("none", "x", "the text does not occur in a: read it again"),
        ("two  three", "x", "at line 2 only spaces or line endings differ"),
        ("o", "x", "the text occurs 2 times in a (lines 1, 2)"),
    ],
)
def test_an_edit_that_is_not_plain_is_refused_with_the_reason(pwd, use, old, new, words):
    (pwd / "a").write_text("one\ntwo three\n")
    result = use("edit_file", path="a", old=old, new=new)
    assert result.is_error
    assert words in result.text
    assert (pwd / "a").read_text() == "one\ntwo three\n"


def test_an_edit_keeps_foreign_line_ends_and_bytes(pwd, use):
    (pwd / "a").write_bytes(b"caf\xe9\r\none\r\ntwo\r\n")
    assert not use("edit_file", path="a", old="one\ntwo", new="1\n2").is_error
    assert (pwd / "a").read_bytes() == b"caf\xe9\r\n1\r\n2\r\n"


def test_binary_and_huge_files_are_not_edited(pwd, use):
    (pwd / "binary").write_bytes(b"a\0b")
    with (pwd / "huge").open("wb") as file:
        file.truncate(17 * 1024 * 1024)
    assert "binary file" in use("edit_file", path="binary", old="a", new="b").text
    assert "takes at most" in use("edit_file", path="huge", old="a", new="b").text


def test_readers_may_run_together_and_writers_alone():
    kinds = {each.name: each.concurrency for each in builtin(["files", "search"])}
    assert {name for name, kind in kinds.items() if kind == "exclusive"} == {"write_file", "edit_file"}
    assert {name for name, kind in kinds.items() if kind == "read_only"} == set(kinds) - {
        "write_file",
        "edit_file",
    }


def test_built_in_tools_are_chosen_by_group_or_by_name_each_once():
    assert [each.name for each in builtin(["files"])] == list(ALL)
    assert [each.name for each in builtin(["grep", "search"])] == ["grep", "find_files"]
    assert builtin([]) == ()
    assert set(BUILTIN_GROUPS) == {"files", "search", "memory", "fetch", "pods", "shell", "agents"}


def test_an_unknown_built_in_tool_names_those_there_are():
    with pytest.raises(
        ManifestError, match=r"no built-in tool 'file'; did you mean 'files'\? .*find_files, grep"
    ):
        builtin(["file"])


def test_reading_goes_on_while_another_writes_and_never_sees_half(pwd, use):
    contents = {"a" * 200_000, "b" * 100_000}
    (pwd / "a").write_text("a" * 200_000)
    done = threading.Event()

    def write() -> None:
        for n in range(30):
            use("write_file", path="a", content=sorted(contents)[n % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add((pwd / "a").read_text())
    writer.join()
    assert seen <= contents
