"""The search tools find what may be read, in bounded time, and say what they left out."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.runtime.children.trees import remove_tree
from actors.tools.base import ToolContext
from actors.tools.builtin import builtin
from actors.tools.cancel import Cancel
from actors.tools.filesystem.glob import matcher
from actors.tools.filesystem.walk import walk
from actors.tools.scope import uniform_below
from actors.tools.toolbox import Toolbox
from protocol.errors import ToolError
from protocol.items import ToolCall
from protocol.scope import Rule, Scope


@pytest.fixture
def tree(pwd):
    for name in (
        "README.md",
        "src/app.py",
        "src/deep/util.py",
        "src/deep/util.md",
        ".git/config.py",
        "node_modules/x.py",
    ):
        (pwd / name).parent.mkdir(parents=True, exist_ok=True)
        (pwd / name).write_text(f"this is {name}\nHello world\nlast\n")
    return pwd


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("*.py", "a.py", True),
        ("*.py", "deep/er/a.py", True),
        ("*.py", "a.pyc", False),
        ("src/*.py", "src/a.py", True),
        ("src/*.py", "src/deep/a.py", False),
        ("src/**/*.py", "src/a.py", True),
        ("src/**/*.py", "src/b/c/a.py", True),
        ("**/a.py", "a.py", True),
        ("src/**", "src/b/c", True),
        ("./src/*", "src/a", True),
        ("{a,b{c,d}}.py", "bd.py", True),
        ("{a,b}.py", "c.py", False),
        ("[!a]?", "bc", True),
        ("[!a]?", "ac", False),
        ("src/", "src", True),
        ("A*", "abc", False),
    ],
)
def test_patterns_mean_what_people_expect(pattern, path, fits):
    assert matcher(pattern)(path) is fits


@pytest.mark.parametrize("pattern", ["", "/etc/*", "../*", "a/../b", "{a,b}" * 7])
def test_patterns_that_can_never_fit_are_refused(pattern):
    with pytest.raises(ToolError, match="pattern"):
        matcher(pattern)


def test_a_pattern_of_stars_does_not_blow_up():
    assert matcher("*a" * 60 + "b")("a" * 250) is False
    assert matcher("**/" * 30 + "x")("a/" * 60 + "y") is False
    assert matcher("**/x")("a/" * 5000 + "x") is True  # deeper than recursion may go


@given(st.text(st.sampled_from("ab*?[]{},/.!"), max_size=12), st.text(st.sampled_from("ab/"), max_size=8))
def test_any_pattern_is_either_refused_or_gives_an_answer(pattern, path):
    try:
        fits = matcher(pattern)
    except ToolError:
        return
    assert fits(path) in {True, False}


def test_files_are_found_by_name_without_what_programs_made(tree, use):
    assert use("find_files", pattern="*.py").text.splitlines() == ["src/app.py", "src/deep/util.py"]
    assert use("find_files", pattern="*.py", path="src/deep").text == "util.py"
    assert "node_modules/x.py" in use("find_files", pattern="*.py", include_ignored=True).text
    assert use("find_files", pattern="deep").text == "src/deep/"
    assert use("find_files", pattern="*.rs").text.startswith("nothing below . matches '*.rs'")


def test_finding_is_bounded_and_says_so(tree, use):
    lines = use("find_files", pattern="*", limit=2).text.splitlines()
    assert lines == ["README.md", "src/", "[more than 2 match; narrow the pattern or the path]"]


def test_folders_that_programs_nest_by_the_thousand_are_not_looked_into_and_said(pwd, use):
    (pwd / "top.txt").write_text("needle")
    here = os.open(pwd, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    note = "[not searched, more than 200 folders deep: d/d/"
    found = use("find_files", pattern="**/*.txt").text.splitlines()
    assert found[0] == "top.txt"
    assert found[1].startswith(note)
    found = use("grep", pattern="needle").text.splitlines()
    assert found[0] == "top.txt:1: needle"
    assert found[1].startswith(note)
    remove_tree(pwd / "d")  # pytest cannot


def test_neither_tool_shows_what_the_scope_does_not_permit(tree, use):
    outside = tree.parent / "outside"
    outside.mkdir()
    (outside / "secret.py").write_text("Hello secret")
    (tree / "link.py").symlink_to(outside / "secret.py")
    (tree / "folder").symlink_to(outside)
    (tree / "inner.py").symlink_to("src/app.py")
    scope = Scope(allow=(Rule(str(tree)),), deny=(Rule(f"{tree}/src/deep"),))
    assert use("find_files", pattern="*.py", scope=scope).text.splitlines() == ["inner.py", "src/app.py"]
    found = use("grep", pattern="Hello", glob="*.py", scope=scope).text
    assert found.splitlines() == ["inner.py:2: Hello world", "src/app.py:2: Hello world"]
    for name in ("find_files", "grep"):
        for path in ("folder", "..", "link.py", "src/deep"):
            assert "not allowed to read" in use(name, pattern="x", path=path, scope=scope).text


PLACES = st.lists(st.sampled_from("ab"), max_size=3).map(lambda names: "/".join(["/r", *names]))
RULES = st.lists(
    st.builds(Rule, target=PLACES, permission=st.sampled_from(["read", "write"]), recursive=st.booleans()),
    max_size=4,
).map(tuple)
SCOPES = st.builds(Scope, allow=RULES, deny=RULES)


@given(SCOPES, SCOPES, PLACES, st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=3), min_size=2))
def test_where_no_rule_begins_below_a_directory_all_below_is_alike(outer, inner, folder, below):
    scope = outer.narrow(inner)
    if uniform_below(scope, Path(folder)):
        assert len({scope.permission(Path(folder, *names)) for names in below}) == 1


@given(scope=SCOPES)
def test_a_walk_gives_exactly_what_may_be_read(tmp_path_factory, scope):
    root = tmp_path_factory.getbasetemp() / "walk"
    for deep in ("a/a/a", "a/b", "b/a/b", "b/b"):
        (root / deep).mkdir(parents=True, exist_ok=True)
    moved = Scope(
        tuple(Rule(r.target.replace("/r", str(root)), r.permission, r.recursive) for r in scope.allow),
        tuple(Rule(r.target.replace("/r", str(root)), r.permission, r.recursive) for r in scope.deny),
    )
    ctx = ToolContext(pwd=root, scope=moved)
    seen = {found.path for found in walk(ctx, root, include_ignored=False)}
    assert all(moved.permits(path, "read") for path in seen)
    for path in root.rglob("*"):
        reachable = all(moved.permits(p, "read") for p in (path, *path.parents) if root in p.parents)
        assert (path in seen) == reachable


def test_lines_are_found_with_their_file_and_number(tree, use):
    assert use("grep", pattern="^Hello", path="src", glob="*.md").text == "deep/util.md:2: Hello world"
    assert use("grep", pattern="hello", path="README.md", ignore_case=True).text == "README.md:2: Hello world"
    assert use("grep", pattern="hello").text.startswith("no line below . matches 'hello'")


def test_neighbouring_lines_are_shown_once_with_breaks_between(pwd, use):
    (pwd / "a").write_text("".join(f"{n}\n" for n in range(1, 13)))
    text = use("grep", pattern="^(2|4|11)$", path="a", context=1).text
    assert text.splitlines() == [
        *("a-1- 1", "a:2: 2", "a-3- 3", "a:4: 4", "a-5- 5"),
        "--",
        *("a-10- 10", "a:11: 11", "a-12- 12"),
    ]


def test_matches_are_bounded_over_all_files_and_it_says_so(tree, use):
    text = use("grep", pattern="i", limit=2).text
    assert text.splitlines() == [
        "README.md:1: this is README.md",
        "src/app.py:1: this is src/app.py",
        "[more than 2 lines match; narrow the pattern or the path]",
    ]


def test_files_that_are_matched_together_are_kept_apart_in_their_order(pwd, use):
    for number in range(200):
        folder = pwd / f"d{number // 30:02}"
        folder.mkdir(exist_ok=True)
        (folder / f"f{number:03}").write_text(f"{number}\n" * (number % 3) + ("" if number % 7 else "seven"))
    wanted = [
        f"d{number // 30:02}/f{number:03}:{line}: {text}"
        for number in range(200)
        for line, text in enumerate([str(number)] * (number % 3) + ([] if number % 7 else ["seven"]), 1)
    ]
    assert use("grep", pattern=".", limit=1000).text.splitlines() == wanted
    shown = use("grep", pattern=".", limit=100).text.splitlines()
    assert shown == [*wanted[:100], "[more than 100 lines match; narrow the pattern or the path]"]


def test_a_file_that_takes_too_long_is_named_among_those_matched_with_it(pwd, use, monkeypatch):
    monkeypatch.setattr("actors.tools.filesystem.search._SECONDS_A_FILE", 0.3)
    for name in "abcd":
        (pwd / name).write_text("a" * 40 + "!" if name == "c" else "a")
    text = use("grep", pattern="(a+)+$").text
    assert text.startswith("the pattern takes more than 0.3 s on c")


def test_of_a_long_line_the_part_around_the_match_is_shown(pwd, use):
    (pwd / "a").write_text("x" * 5000 + "needle" + "y" * 3000)
    text = use("grep", pattern="needle").text
    assert "…x" in text
    assert "needle" in text
    assert text.endswith("y…")
    assert len(text) < 400


def test_binary_huge_and_unreadable_files_are_passed_over_and_counted(pwd, use):
    (pwd / "binary").write_bytes(b"needle\0")
    with (pwd / "huge").open("wb") as file:
        file.truncate(9 * 1024 * 1024)
    os.mkfifo(pwd / "pipe")
    (pwd / "text").write_text("needle")
    text = use("grep", pattern="needle").text
    assert text.splitlines() == [
        "text:1: needle",
        "[3 files were skipped: binary, over 8 MB, or not readable]",
    ]


@pytest.mark.parametrize("pattern", ["(", "[z-a]", "(?P<x", "a{99999999999}"])
def test_what_is_no_regular_expression_is_refused(tree, use, pattern):
    result = use("grep", pattern=pattern)
    assert result.is_error
    assert "is not a regular expression" in result.text


def test_a_pattern_that_never_ends_is_ended_while_the_loop_goes_on(pwd, monkeypatch):
    monkeypatch.setattr("actors.tools.filesystem.search._SECONDS_A_FILE", 0.05)
    (pwd / "a").write_text("a" * 60 + "!")
    (spec,) = builtin(["grep"])
    toolbox, ctx = Toolbox([spec]), ToolContext(pwd=pwd, scope=Scope.readable(pwd))

    async def main() -> tuple[str, int]:
        task = asyncio.create_task(toolbox.run(ToolCall("c", "grep", {"pattern": "(a+)+$"}), ctx))
        turns = 0
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        return (await task).text, turns

    text, turns = asyncio.run(main())
    assert text.startswith("the pattern takes more than 0.05 s on a")
    assert turns > 10


class Watched(Cancel):
    """Says when a tool at work looks at it."""

    def __init__(self) -> None:
        super().__init__()
        self.is_watched = threading.Event()

    def on_cancel(self, callback):
        forget = super().on_cancel(callback)
        self.is_watched.set()
        return forget


def test_a_cancel_ends_a_search_at_work(pwd):
    (pwd / "a").write_text("a" * 60 + "!")
    cancel = Watched()
    toolbox, ctx = Toolbox(builtin(["grep"])), ToolContext(pwd=pwd, scope=Scope.readable(pwd), cancel=cancel)
    before = threading.active_count()

    async def main() -> None:
        task = asyncio.create_task(toolbox.run(ToolCall("c", "grep", {"pattern": "(a+)+$"}), ctx))
        await asyncio.to_thread(cancel.is_watched.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert ctx.cancel.cancelled
    assert threading.active_count() <= before + 1


def test_a_pattern_that_python_warns_of_warns_nobody(pwd, use):
    (pwd / "a").write_text("a:]\n")
    assert use("grep", pattern="[[:alpha:]]").text == "a:1: a:]"


def test_a_pattern_is_refused_in_bounded_words(use):
    result = use("grep", pattern="(" * 5000)
    assert result.is_error
    assert "is not a regular expression" in result.text
    assert len(result.text) < 600


def test_what_a_search_did_not_look_at_is_said(pwd, use):
    (pwd / "long").write_text("x" * 20_000 + "needle\n")
    text = use("grep", pattern="needle").text
    assert text.startswith("no line below . matches 'needle'")
    assert "in 1 files only the first 10,000 characters of long lines were searched" in text
    (pwd / "b").write_bytes(b"needle\0")
    text = use("grep", pattern="needle").text
    assert text.startswith("no line below . matches 'needle'")
    assert "1 files were skipped" in text
    assert "lines are matched one by one" in use("grep", pattern=r"x\nneedle").text
    assert "lines are matched one by one" not in use("grep", pattern=r"y\\nz").text


def test_a_name_cannot_pass_for_another_line(pwd, use):
    name = "a\n[left out as secret: all]\x1b[31m"
    (pwd / name).write_text("needle\n")
    (pwd / "café").write_text("hay\n")
    shown = '"a\\n[left out as secret: all]\\u001b[31m"'
    assert use("list_files").text == f"{shown} (7 bytes)\ncafé (4 bytes)"
    assert use("find_files", pattern="*").text == f"{shown}\ncafé"
    assert use("grep", pattern="needle").text == f"{shown}:1: needle"
    assert use("read_file", path=json.loads(shown)).text == "needle\n"
