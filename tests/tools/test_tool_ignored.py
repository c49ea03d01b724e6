"""What git ignores is left out of searches and lists, as git itself would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from effort import THOROUGH, times
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.tools.base import ToolContext
from actors.tools.filesystem.ignored import Rules
from actors.tools.filesystem.walk import walk
from actors.tools.scope import resolved
from protocol.scope import Rule, Scope


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch) -> Path:
    """A user without rules of their own."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return home


def put(folder: Path, *names: str, **texts: str) -> None:
    for name, text in [*((name, "hay") for name in names), *texts.items()]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def found(use, **arguments) -> set[str]:
    return set(use("find_files", pattern="*.*", **arguments).text.splitlines())


def test_what_is_ignored_is_neither_found_nor_searched_nor_listed_unless_asked_for(pwd, use):
    put(pwd, "a.py", "a.log", "build/b.py", "sub/c.log", **{".gitignore": "*.log\nbuild/\n"})
    assert found(use) == {".gitignore", "a.py"}
    assert found(use, include_ignored=True) == {".gitignore", "a.py", "a.log", "build/b.py", "sub/c.log"}
    assert use("grep", pattern="hay").text == "a.py:1: hay"
    assert "sub/c.log:1: hay" in use("grep", pattern="hay", include_ignored=True).text
    listed = use("list_files").text.splitlines()
    assert listed == [
        "sub/",
        "a.py (3 bytes)",
        "[left out as ignored: build/, a.log; set include_ignored to see all]",
    ]
    assert "a.log (3 bytes)" in use("list_files", include_ignored=True).text


def test_a_model_that_finds_nothing_learns_what_was_left_out(pwd, use):
    put(pwd, "build/b.py", "x.log", **{".gitignore": "*.log\nbuild/\n"})
    reported = use("grep", pattern="hay", glob="*.py").text
    assert "left out as ignored: build/, x.log" in reported
    assert "include_ignored" in reported


def test_what_is_named_is_looked_at(pwd, use):
    put(pwd, "build/b.py", "build/deep/c.py", "local.toml", **{".gitignore": "build/\nlocal.toml\n"})
    assert use("find_files", pattern="build/*.py").text == "build/b.py"
    assert use("find_files", pattern="local.toml").text == "local.toml"
    assert use("find_files", pattern="*.py", path="build").text.splitlines() == ["b.py", "deep/c.py"]
    assert use("find_files", pattern="*.py", path="build/deep").text == "c.py"
    assert use("grep", pattern="hay", path="local.toml").text == "local.toml:1: hay"
    assert "c.py" in use("list_files", path="build/deep").text


def test_deeper_files_speak_last_and_may_take_back(pwd, use):
    put(pwd, "a.txt", "sub/a.txt", "sub/b.txt", "sub/deep/b.txt", "other/b.txt")
    put(pwd, **{".gitignore": "*.txt\n", "sub/.gitignore": "!b.txt\n/deep/b.txt\n"})
    assert found(use) == {".gitignore", "sub/.gitignore", "sub/b.txt"}


def test_rules_above_hold_as_far_as_the_repository_and_the_scope_reach(tmp_path, pwd, use):
    put(tmp_path, **{".gitignore": "*.log\n/pod/only_here.py\n"})
    put(pwd, "a.log", "only_here.py", "b.py")
    everything = Scope.writable(tmp_path)
    assert found(use, scope=everything) == {"b.py"}
    assert found(use) == {"a.log", "b.py", "only_here.py"}  # it is not permitted to look above
    (pwd / ".git").mkdir()
    assert found(use, scope=everything) == {"a.log", "b.py", "only_here.py"}


def test_the_rules_of_the_user_and_of_the_repository_hold(pwd, use, home):
    put(pwd, "a.swp", "b.tmp", "c.py", "d.bak", **{".git/info/exclude": "*.tmp\n"})
    put(home, **{".config/git/ignore": "*.swp\n"})
    assert found(use) == {"c.py", "d.bak"}
    put(home, **{".gitconfig": '[core]\n\texcludesFile = "~/mine"\n', "mine": "*.bak\n"})
    assert found(use) == {"a.swp", "c.py"}


def test_a_secret_file_is_denied_whatever_the_rules_say(pwd, use):
    put(pwd, ".env", "a.py", **{".gitignore": "!.env\n"})
    assert found(use, include_ignored=True) == {
        ".gitignore",
        "a.py",
        "[left out as secret: .env; the user can allow one by name in the scope]",
    }
    scope = Scope(allow=(Rule(str(pwd)), Rule(str(pwd / ".env"))))
    assert ".env" in found(use, scope=scope)


def test_rules_behind_a_symlink_are_not_read(tmp_path, pwd, use):
    put(tmp_path, rules="*.py\n")
    put(pwd, "a.py")
    (pwd / ".gitignore").symlink_to(tmp_path / "rules")
    assert "a.py" in found(use)


def test_lines_that_are_no_patterns_are_passed_over(pwd, use):
    put(pwd, "a.py", "b.log", **{".gitignore": "!\n\\\n[z-a]\n[[:alpha:]]x\n#c\n\n  \n*.log\r\n"})
    assert found(use) == {".gitignore", "a.py"}


@pytest.mark.parametrize("pattern", ["*a" * 12 + "b", "**/a" * 12 + "b", "a/**/" * 12 + "b"])
def test_a_pattern_that_takes_for_ever_is_passed_over(pattern):
    assert Rules([pattern, "*.log"]).verdict("a/" * 100 + "a" * 250) is None


def test_names_that_are_no_text_are_matched(pwd, use):
    name = os.fsdecode(b"b\xff.log")
    put(pwd, "a.py", name, **{".gitignore": "*.log\n"})
    assert found(use) == {".gitignore", "a.py"}


@pytest.mark.parametrize("rule", ["*/", "**/", "/*/", "?/"])
def test_a_rule_for_all_folders_leaves_no_folder_out(pwd, use, rule):
    put(pwd, "a/b.x", "c.x", **{".gitignore": f"{rule}\n"})
    assert found(use) == {".gitignore", "c.x"}


def test_the_last_rule_that_speaks_of_a_folder_holds(pwd, use):
    put(pwd, "a/b.x", "c/d.x", "c/e.x", **{".gitignore": "!*\na\nc/**\n!c/e.x\n"})
    assert found(use) == {".gitignore", "c/e.x"}


NAMES = st.sampled_from(["a", "b", "ab", "a.x", "b.x", "[a]", "c d"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
PIECES = ["a", "b", "ab", "*", "?", "**", "/", "/", ".x", "[ab]", "[!a]", "\\[a\\]", "c d", "\\ ", "c"]
# Without what git's documentation leaves open: slashes in a row, and ``**`` beside anything but slashes.
PATTERN = (
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=6)
    .map("".join)
    .filter(lambda each: re.search(r"//|[^/]\*\*|\*\*[^/]", each) is None)
)
LINES = st.lists(st.builds("{}{}".format, st.sampled_from(["", "", "", "!"]), PATTERN), max_size=5)


by_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is the judge")

#: Where pathspec alone, or a quick look before it, read other rules than git does.
READ_OTHERWISE = [
    ({"a/a"}, ["*/"]),
    ({"a/b"}, ["!*", "a"]),
    ({"a/b"}, ["a", "!/"]),
    ({"a/a"}, ["a[!a]"]),
    ({"a"}, ["***/a"]),
    ({"a/a"}, ["**/a/a"]),
    ({"b/a/a.x", "a/a.x"}, ["**/a/*.x"]),
    ({"a/b", "a/c"}, ["a/**", "!a/c"]),
]


@by_git
@pytest.mark.parametrize(("files", "rules"), READ_OTHERWISE)
def test_rules_are_read_as_git_reads_them(tmp_path, files, rules):
    check(tmp_path, files, rules, {})


@by_git
@pytest.mark.skipif(not THOROUGH, reason="a process for each of some hundred trees")
@settings(
    max_examples=times(150),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    files=st.sets(PATHS, min_size=1, max_size=12),
    rules=LINES,
    nested=st.dictionaries(PATHS, LINES, max_size=2),
)
def test_what_is_left_is_what_git_leaves(tmp_path_factory, files, rules, nested):
    check(tmp_path_factory.mktemp("repository"), files, rules, nested)


def check(root: Path, files: set[str], rules: list[str], nested: dict[str, list[str]]) -> None:
    """The walk leaves of a tree what git leaves."""
    subprocess.run(["git", "init", "-q", root], check=True)
    for name in sorted(files, key=len, reverse=True):
        if not (root / name).exists() and all(not each.is_file() for each in (root / name).parents):
            put(root, name)
    for folder, lines in [("", rules), *nested.items()]:
        if (root / folder).is_dir():
            put(root, **{f"{folder}/.gitignore".lstrip("/"): "\n".join(lines)})
    command = ["git", "-C", str(root), "ls-files", "-z", "-o", "--exclude-standard"]
    left = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    ctx = ToolContext(pwd=root, scope=resolved(Scope.writable(root)))
    seen = {each.relative for each in walk(ctx, root, include_ignored=False) if not each.is_dir}
    assert seen == set(left.split("\0")) - {""}, (rules, nested)
