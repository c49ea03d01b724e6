"""Files of git and secret files, as the file and search tools meet them on a real disk."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from effort import times
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.tools.scope import check, resolved
from protocol.errors import ScopeRefused
from protocol.scope import Rule, Scope


def git(*words: str, cwd) -> None:
    names = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always"]
    subprocess.run(["git", *names, *words], cwd=cwd, check=True, capture_output=True, timeout=60)


@pytest.fixture
def repo(pwd):
    git("init", "-q", cwd=pwd)
    (pwd / "app.py").write_text("KEY = os.environ['KEY']\n")
    (pwd / ".env").write_text("KEY=hunter2\n")
    (pwd / ".env.example").write_text("KEY=\n")
    git("add", "app.py", cwd=pwd)
    git("commit", "-qm", "a", cwd=pwd)
    return pwd


@pytest.mark.parametrize("name", ["pods/.polypod/answers.jsonl", ".Polypod/writers/x", "link/answers.jsonl"])
def test_no_pod_answers_for_people_in_the_files_of_its_store(repo, use, name):
    own = repo / "pods" / ".polypod"
    own.mkdir(parents=True)
    (repo / "link").symlink_to(own)
    result = use(
        "write_file", path=name, content='{"approval_id":"x","session_id":"s","approved":true,"at":1}\n'
    )
    assert result.is_error
    assert "only polypod itself" in result.text
    assert list(own.iterdir()) == []


@pytest.mark.parametrize(
    "name", [".git/hooks/pre-commit", ".git/config", ".GIT/hooks/x", ".git", "sub/.git/hooks/x"]
)
@pytest.mark.parametrize("append", [False, True])
def test_nothing_of_gits_is_written(repo, use, name, append):
    result = use("write_file", path=name, content="#!/bin/sh\nevil\n", append=append)
    assert result.is_error
    assert "not allowed to write" in result.text
    assert "only git itself" in result.text
    assert not (repo / "sub").exists()
    result = use("edit_file", path=".git/config", old="[core]", new="[core]\n\thooksPath = /tmp")
    assert result.is_error
    assert "[core]" in use("read_file", path=".git/config").text


def test_not_even_a_rule_lets_a_tool_write_there(repo, use):
    scope = Scope((Rule(str(repo), "write"), Rule(str(repo / ".git"), "write")))
    assert use("write_file", path=".git/hooks/x", content="x", scope=scope).is_error


def test_links_worktrees_submodules_and_bare_repositories_are_git_too(repo, use, tmp_path):
    git("worktree", "add", "-q", "tree", cwd=repo)
    git("init", "-q", "--bare", "bare", cwd=repo)
    git("init", "-q", "--separate-git-dir", str(repo / "apart"), "work", cwd=repo)
    git("init", "-q", "other", cwd=tmp_path)
    git("commit", "-q", "--allow-empty", "-m", "a", cwd=tmp_path / "other")
    git("submodule", "add", "-q", str(tmp_path / "other"), "module", cwd=repo)
    (repo / "hooks").symlink_to(".git/hooks")
    (repo / "link").symlink_to(".git")
    for name in (
        *("tree/.git", "work/.git", "module/.git", "hooks/x", "link/hooks/x", "bare/hooks/x", "bare/config"),
        *("apart/hooks/x", "apart/config", "tree/../link/config"),
    ):
        before = (repo / name).read_bytes() if (repo / name).is_file() else None
        result = use("write_file", path=name, content="gitdir: /tmp/evil\n")
        assert result.is_error, name
        assert "git" in result.text
        assert ((repo / name).read_bytes() if (repo / name).is_file() else None) == before
    for name in ("tree/new", "work/new", "module/new", "refs/new", "HEAD"):
        assert not use("write_file", path=name, content="x").is_error


@pytest.mark.parametrize(
    ("made", "last"),
    [
        (["config", "objects/x", "refs/x"], "HEAD"),
        (["HEAD", "objects/x"], "refs/x"),
        (["HEAD", "refs/x"], "objects/deep/x"),
        (["HEAD"], "commondir"),
        (["commondir"], "head"),
    ],
)
def test_no_repository_is_put_together_file_by_file(repo, use, made, last):
    """Git takes a folder with these in it for a repository, and runs what its config says."""
    for name in made:
        assert not use("write_file", path=f"made/{name}", content="x").is_error
    result = use("write_file", path=f"made/{last}", content="x")
    assert result.is_error
    assert "git repository" in result.text
    assert not (repo / "made" / last).exists()


def test_a_secret_is_neither_read_nor_written_nor_found(repo, use):
    (repo / "notes.txt").symlink_to(".env")
    (repo / "keys").mkdir()
    (repo / "keys" / "server.pem").write_text("hunter2\n")
    for name in (".env", "notes.txt", ".ENV", "keys/server.pem", "keys/../.env"):
        for tool, more in (
            ("read_file", {}),
            ("count_words", {}),
            ("grep", {"pattern": "."}),
            ("write_file", {"content": "x"}),
            ("edit_file", {"old": "KEY", "new": "x"}),
        ):
            result = use(tool, path=name, **more)
            assert result.is_error, (tool, name)
            assert "hunter2" not in result.text
    assert (repo / ".env").read_text() == "KEY=hunter2\n"
    refused = use("read_file", path=".env").text
    assert ".env is treated as a secret" in refused
    assert "allow" in refused
    found = use("grep", pattern="hunter2|KEY", include_ignored=True).text
    assert "hunter2" not in found
    assert "app.py:1" in found
    assert "left out as secret: .env, keys/server.pem" in found or "left out as secret: .env" in found
    assert ".env.example:1" in found


def test_search_and_list_say_which_secrets_they_left_out(repo, use):
    listed = use("list_files", hidden=True).text.splitlines()
    assert not [line for line in listed if line.startswith((".env ", ".env("))]
    assert ".env.example (5 bytes)" in listed
    assert listed[-1].startswith("[left out as secret: .env;")
    assert "secret" not in use("list_files").text, "names with a dot were not asked for"
    assert "left out as secret: .env;" in use("find_files", pattern=".env*").text
    assert "secret" not in use("find_files", pattern="*.py").text, "it would not have fitted"


def test_search_and_list_do_not_say_that_a_rule_could_allow_what_configures_polypod(repo, use):
    (repo / "polypod.toml").write_text("")
    for found in (use("list_files"), use("find_files", pattern="*.toml")):
        assert "[left out: polypod.toml; it configures polypod, so no rule can allow it]" in found.text
        assert "secret: polypod.toml" not in found.text


def test_a_secret_that_the_scope_names_is_a_file_like_any(repo, use):
    scope = Scope((Rule(str(repo), "write"), Rule(str(repo / ".env"), "read")))
    assert use("read_file", path=".env", scope=scope).text == "KEY=hunter2\n"
    assert ".env:1: KEY=hunter2" in use("grep", pattern="hunter2", scope=scope).text
    assert ".env (12 bytes)" in use("list_files", hidden=True, scope=scope).text
    assert use("write_file", path=".env", content="x", scope=scope).is_error


NAMES = st.sampled_from(
    ["a", "A", "link", ".env", ".ENV", ".git", ".Git", "x.key", "e\u0301", "\u00e9", "..", "."]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=times(25))
@given(
    st.lists(st.lists(NAMES, min_size=1, max_size=3), max_size=4),
    st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=3), st.lists(NAMES, max_size=3)), max_size=3),
    st.lists(NAMES, min_size=1, max_size=4),
    st.sampled_from(["read", "write"]),
)
def test_whatever_words_and_links_lead_there_no_path_passes_to_a_secret_or_into_git(
    tmp_path_factory, files, links, asked, permission
):
    root = tmp_path_factory.mktemp("maze") / "in"
    root.mkdir()
    for parts in files:
        place = root.joinpath(*(part for part in parts if part not in (".", "..")))
        if not os.path.lexists(place):
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text("x")
            except OSError:
                continue
    for parts, target in links:
        place = root.joinpath(*(part for part in parts if part not in (".", "..")))
        if place != root and not os.path.lexists(place) and place.parent.is_dir():
            place.symlink_to(Path(root, *target))
    scope = resolved(Scope.writable(root))
    try:
        path = check(scope, root, "/".join(asked), permission)
    except ScopeRefused:
        return
    inside = path.relative_to(os.path.realpath(root)).parts
    assert os.path.realpath(path) == str(path)
    assert not [part for part in inside if part.lower() == ".env" or part.endswith(".key")]
    assert permission == "read" or not [part for part in inside if part.lower() == ".git"]
