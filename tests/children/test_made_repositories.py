"""A program makes a repository where there was none, and nothing of it has git run commands outside."""

import configparser
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from confined_kit import TOKEN, Place, Runner
from hypothesis import given
from hypothesis import strategies as st

from actors.runtime.children.confinement.repository import NEW, format_settings
from protocol.errors import ChildLost

COMMIT = "git init -q . && echo 1 > f && git add f && git -c user.name=n -c user.email=a@b commit -qm one"


def may_make(place: Place) -> dict[str, Any]:
    return {"repositories": (str(place.scope / ".git"),)}


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True, text=True).stdout


def test_what_a_program_commits_is_there_when_it_has_ended(confined: Runner, place: Place) -> None:
    ended = confined.sh(f"{COMMIT}; git status -s; cat .git/HEAD", **may_make(place))
    assert ended.code == 0, ended.text
    assert git(place.scope, "log", "--format=%s") == "one\n"
    assert git(place.scope, "status", "-s") == ""
    git(place.scope, "fsck", "--strict")


def test_nothing_that_has_git_run_commands_is_taken_over(confined: Runner, place: Place) -> None:
    script = f"""
    {COMMIT}
    printf '[core]\\n\\tfsmonitor = evil\\n\\tbare = true\\n\\tworktree = /\\n[include]\\n\\tpath = evil\\n' >> .git/config
    printf '#!/bin/sh\\ntouch {place.scope}/ran' > .git/hooks/post-checkout; chmod +x .git/hooks/*
    echo .. > .git/commondir; mkdir -p .git/modules/m/hooks .git/rebase-merge; echo 'exec evil' > .git/rebase-merge/git-rebase-todo
    """
    confined.sh(script, **may_make(place))
    assert {each.name for each in (place.scope / ".git").iterdir()} == {
        *(
            "HEAD",
            "config",
            "description",
            "hooks",
            "index",
            "info",
            "logs",
            "objects",
            "refs",
            "COMMIT_EDITMSG",
        )
    }
    assert list((place.scope / ".git/hooks").iterdir()) == []
    assert "evil" not in (place.scope / ".git/config").read_text()
    git(place.scope, "checkout", "-q", "-b", "other")
    assert not (place.scope / "ran").exists()


def test_nothing_is_taken_over_by_way_of_a_symlink(confined: Runner, place: Place) -> None:
    script = """
    git init -q .; rm .git/config .git/description; ln -s "$SECRET" .git/config; ln -s "$SECRET" .git/description
    ln -s "$(dirname "$SECRET")" .git/logs
    """
    before = place.snapshot()
    confined.sh(script, **may_make(place))
    assert (place.scope / ".git/config").read_text() == ""
    assert {each.name for each in (place.scope / ".git").iterdir()} == {
        *("HEAD", "config", "hooks", "info", "objects", "refs")
    }
    assert place.snapshot() == before


@pytest.mark.parametrize(
    "script",
    [
        "true",
        "touch .git/x; mkdir -p .git/a/b; ln -s / .git/a/root; chmod 500 .git/a; mkfifo .git/p",
        "rm -rf .git; mv .git x",
        "mkdir -p .git/" + "d/" * 1500,
    ],
)
def test_what_is_no_repository_goes(confined: Runner, place: Place, script: str) -> None:
    confined.sh(script, **may_make(place))
    assert not (place.scope / ".git").exists()
    confined.sh("git status; chmod -R 700 .git; git init -q", **may_make(place))
    assert (place.scope / ".git/HEAD").exists()


def test_programs_that_run_together_have_one_repository_which_the_last_leaves(
    confined: Runner, place: Place
) -> None:
    async def together() -> None:
        first = await confined.start(
            ["sh", "-c", "read line; git log --format=%s > seen"], stdin="pipe", **may_make(place)
        )
        second = await confined.start(["sh", "-c", COMMIT], **may_make(place))
        assert (await second.wait()).code == 0
        assert [each.name for each in (place.scope / ".git").iterdir()] == [NEW]
        assert first.stdin is not None
        first.stdin.close()
        await first.wait()

    confined.call(together())
    assert (place.scope / "seen").read_text() == "one\n"
    assert git(place.scope, "log", "--format=%s") == "one\n"


def test_what_a_killed_warden_left_is_gone_on_with(confined: Runner, place: Place) -> None:
    async def kill() -> None:
        child = await confined.start(["sh", "-c", f"{COMMIT}; echo up; cat"], stdin="pipe", **may_make(place))
        assert child.stdout is not None
        assert await child.stdout.readline() == b"up\n"
        warden = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(warden, signal.SIGKILL)
        with pytest.raises(ChildLost):
            await child.wait()

    confined.call(kill())
    assert not (place.scope / ".git/HEAD").exists()
    assert confined.sh("git log --format=%s", **may_make(place)).text == "one\n"
    assert git(place.scope, "log", "--format=%s") == "one\n"


def test_a_repository_that_a_person_makes_meanwhile_is_theirs(confined: Runner, place: Place) -> None:
    async def meanwhile() -> None:
        child = await confined.start(
            ["sh", "-c", f"{COMMIT}; echo up; read line; echo evil >> .git/config"],
            stdin="pipe",
            **may_make(place),
        )
        assert child.stdout is not None
        assert await child.stdout.readline() == b"up\n"
        git(place.scope, "init", "-q")
        git(place.scope, "config", "user.name", "me")
        assert child.stdin is not None
        child.stdin.close()
        await child.wait()

    confined.call(meanwhile())
    assert git(place.scope, "config", "user.name") == "me\n"
    assert "evil" not in (place.scope / ".git/config").read_text()
    assert (place.scope / ".git/hooks").is_dir()


def test_a_repository_that_has_come_to_be_since_is_not_open(confined: Runner, place: Place) -> None:
    git(place.scope, "init", "-q")
    (place.scope / ".git/config").write_text(f"[user]\n\tname = {TOKEN}\n")
    assert TOKEN not in confined.sh("cat .git/config; echo evil > .git/config", **may_make(place)).text
    assert "evil" not in (place.scope / ".git/config").read_text()


LINES = (
    *("[core]", "[CORE]", '[core "x"]', "[include]", "[extensions]", "bare = true", "bare = false"),
    *("FileMode=true", "fsmonitor = evil", "path = x", "repositoryformatversion = 1"),
    *("objectformat = sha256", "bare = \\", "# x"),
)


@given(st.lists(st.sampled_from(LINES) | st.text(max_size=20)))
def test_of_the_settings_those_of_the_form_alone_are_kept(lines: list[str]) -> None:
    kept = format_settings("\n".join(lines).encode("utf-8", "surrogatepass")).decode()
    parser = configparser.ConfigParser(strict=True)
    parser.read_string(kept)
    assert {*parser.sections()} <= {"core", "extensions"}
    for section in parser.sections():
        for key, value in parser[section].items():
            assert key in {"bare", "filemode", "repositoryformatversion", "objectformat"}
            assert value in {"true", "false", "0", "1", "sha1", "sha256"}
    assert parser.get("core", "bare", fallback="false") == "false"
    assert format_settings(kept.encode()).decode() == kept


@pytest.mark.parametrize("last", ["HEAD", "refs", "objects", "commondir"])
def test_a_folder_itself_is_made_no_repository(confined: Runner, place: Place, last: str) -> None:
    git(place.scope, "init", "-q")
    names = ["HEAD", "config", *({"refs", "objects"} if last != "commondir" else {"commondir"})]
    moves = "\n".join(f"mv new/{each} ." for each in sorted(names, key=lambda each: each == last))
    script = f"""
    git init -q --bare new; echo .git > new/commondir; printf '[core]\\n\\tfsmonitor = touch {place.scope}/ran #\\n' >> new/config
    rm .git/HEAD
    {moves}
    sleep 1000
    """
    assert confined.sh(script).code == -signal.SIGKILL
    assert not (place.scope / "HEAD").exists()
    subprocess.run(["git", "-C", place.scope, "status"], capture_output=True, check=False)
    assert not (place.scope / "ran").exists()
    assert confined.sh("rm -rf objects refs commondir; touch HEAD; echo fine").text == "fine\n"


def test_a_folder_that_is_a_repository_already_is_one_still(confined: Runner, place: Place) -> None:
    git(place.scope, "init", "-q", "--bare")
    assert confined.sh("touch x; git log; echo fine").text.endswith("fine\n")
    assert (place.scope / "HEAD").exists()
