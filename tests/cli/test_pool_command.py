"""``polypod pool`` as its users have it: at a terminal, in a pipe, and killed in the middle."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_kit import Home
from person import CTRL_C, person
from rich.cells import cell_len

PROGRAM = Path(__file__).parents[1] / "swarm/programs/listening.py"
MINE = f"mine={shlex.join([sys.executable, '-I', '-S', str(PROGRAM)])}"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_jobs_are_queued_done_listed_and_shown(home: Home) -> None:
    assert home.polypod("pool", "add", "Fix tests", "fix them").out == "fix-tests-1\n"
    added = home.polypod("pool", "add", "bad", "-", "--priority", "2", "--json", words="fail").lines
    assert (added[0]["id"], added[0]["job"]["priority"]) == ("bad-2", 2)
    done = home.polypod("pool", "run", "--runner", MINE, "--limit", "mine=1")
    assert done.code == 1, "one has failed"
    assert [line.split(" in ")[0] for line in done.out.splitlines()] == [
        "✗ fail bad-2 by mine",
        "✓ done fix-tests-1 by mine",
    ]
    listed = home.polypod("pool", "ls")
    assert [line.split()[:3] for line in listed.out.splitlines()] == [
        ["✗", "fail", "bad-2"],
        ["✓", "done", "fix-tests-1"],
    ]
    assert listed.err == "1 done, 1 failed\n"
    [shown] = home.polypod("pool", "show", "1", "--json").lines
    assert (shown["status"], shown["result"], shown["attempts"]) == ("done", "did fix them", 1)
    assert "did fix them" in home.polypod("pool", "show", "fix-tests-1").out
    log = home.polypod("pool", "show", "fix-tests-1", "--log").lines
    assert [line["type"] for line in log if line["type"] in {"assistant", "result"}] == [
        "assistant",
        "result",
    ]
    [only] = home.polypod("pool", "ls", "--status", "failed", "--json").lines
    assert only["id"] == "bad-2"
    assert [each["id"] for each in home.polypod("pool", "run", "--runner", MINE, "--json").lines] == []


def test_cancelling_a_job_that_waits_ends_it_and_one_that_ended_is_let_be(home: Home) -> None:
    home.polypod("pool", "add", "one", "do it")
    assert home.polypod("pool", "cancel", "one-1").out == "one-1 was cancelled\n"
    assert "had already ended: cancelled" in home.polypod("pool", "cancel", "1").err
    wrong = home.polypod("pool", "cancel", "1", "two-2")
    assert (wrong.code, wrong.out) == (2, "")


def test_a_job_is_found_by_a_beginning_of_its_id_that_fits_no_other(home: Home) -> None:
    for name in ("Fix tests", "fix docs", "7up"):
        home.polypod("pool", "add", name, "do it")
    assert [row["id"] for row in home.polypod("pool", "show", "fix-t", "--json").lines] == ["fix-tests-1"]
    assert "no job '7'" in home.polypod("pool", "show", "7").err
    several = home.polypod("pool", "cancel", "7u", "fix")
    assert (several.code, several.out) == (2, "")
    assert "2 jobs match 'fix'; use one of these ids:" in several.err
    assert re.findall(r"fix-\w+-\d", several.err) == ["fix-docs-2", "fix-tests-1"]
    for shortened in ("fix-t…", "fix-t..."):
        assert [row["id"] for row in home.polypod("pool", "show", shortened, "--json").lines] == [
            "fix-tests-1"
        ]
    assert "no job '…'" in home.polypod("pool", "show", "…").err
    cancelled = home.polypod("pool", "cancel", "7u…", "fix-d").out
    assert cancelled == "7up-3 was cancelled\nfix-docs-2 was cancelled\n"


def test_the_number_in_an_id_is_no_beginning_of_a_longer_one(home: Home) -> None:
    for _ in range(10):
        home.polypod("pool", "add", "fix", "do it")
    home.polypod("pool", "cancel", "fix-1")
    home.polypod("pool", "gc", "--older-than", "0m")
    assert "no job 'fix-1'" in home.polypod("pool", "cancel", "fix-1").err
    assert "9 jobs match 'fix'" in home.polypod("pool", "show", "fix").err
    assert [row["status"] for row in home.polypod("pool", "show", "fix-10", "--json").lines] == ["queued"]


def test_a_pod_can_read_and_write_in_the_working_copy_of_its_job(home: Home) -> None:
    git = "git init -q && echo apple pear > a.txt && git add a.txt && "
    made = git + "git -c user.name=me -c user.email=me@here commit -qm first"
    subprocess.run(made, shell=True, check=True, cwd=home.folder)
    words = "read a.txt then write \u201cplum\u201d to b.txt"
    home.polypod("pool", "add", "look", words, "--workspace", "worktree")
    [done] = home.polypod("pool", "run", "--runner", "pod", "--model", "offline", "--json").lines
    assert "apple pear" in done["result"]
    assert [file["path"] for file in done["changes"]["files"]] == ["b.txt"]
    assert not (home.folder / "b.txt").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["show", "nope"], "no job 'nope'"),
        (["show", "7"], "no job '7'"),
        (["cancel", "other-1"], "no job 'other-1'"),
        (["show", "9" * 20], "no job"),
        (["cancel", f"one-{'9' * 20}"], "no job"),
        (["add", "", "do"], "has no name"),
        (["add", "a", "  "], "has no instructions"),
        (["add", "a", "b", "--cwd", "/no/such"], "there is no directory"),
        (["add", "a", "b", "--priority", "99999999999"], "out of range"),
        (["run"], "no runner is configured"),
        (["run", "--runner", "no-such"], "there is no runner 'no-such'"),
        (["run", "--runner", "x="], "is not NAME or NAME=COMMAND"),
        (["run", "--runner", "x='"], "not a valid command"),
        (["run", "--runner", "claude", "--limit", "other=2"], "is not a runner"),
        (["run", "--runner", "claude", "--limit", "claude=0"], "is not NAME=N"),
        (["run", "--runner", "claude", "--limit", f"claude={'9' * 20}"], "limits['claude']"),
        (["ls", "--store", "memory:"], "would end with this command"),
    ],
)
def test_bad_input_is_said_in_words(home: Home, words: list[str], says: str) -> None:
    home.polypod("pool", "add", "one", "do it")
    done = home.polypod("pool", *words)
    assert says in done.err
    assert done.code in {1, 2}
    assert "Traceback" not in done.err


def test_a_pool_of_a_project_has_its_runners_and_limits_from_the_configuration(home: Home) -> None:
    folder = home.folder.parent / ".config" / "polypod"
    folder.mkdir(parents=True)
    command = ", ".join(f'"{word}"' for word in shlex.split(MINE.removeprefix("mine=")))
    (folder / "polypod.toml").write_text(
        f'[[runner]]\nname = "mine"\ncommand = [{command}]\n[pool]\nrunners = ["mine"]\nlimits = {{ mine = 1 }}\n'
    )
    home.polypod("pool", "add", "one", "well")
    done = home.polypod("pool", "run", "--json")
    assert [(each["agent"], each["status"]) for each in done.lines] == [("mine", "done")]


@pytest.mark.parametrize("columns", [40, 100])
def test_bars_show_how_a_pool_gets_on_and_ctrl_c_leaves_the_rest_to_the_next(
    home: Home, columns: int
) -> None:
    for words in ("well", "wait"):
        home.polypod("pool", "add", f"a job with a long name that is {words}", words)
    command = ("pool", "run", "--runner", MINE, "--limit", "mine=1")
    with person(home, *command, columns=columns) as somebody:
        for words in ("done", "1/2", "mine", "1/1"):
            somebody.sees(words)
        somebody.press(CTRL_C)
        assert somebody.leaves_with() == 130
    text = _ESCAPES.sub("", somebody.written)
    assert "Traceback" not in text
    assert all(cell_len(line.split("\r")[-1]) <= columns for line in text.replace("\r\n", "\n").split("\n"))
    states = {
        each["job"]["instructions"]: each["status"] for each in home.polypod("pool", "ls", "--json").lines
    }
    assert states == {"well": "done", "wait": "queued"}


def test_one_command_cancels_what_another_does_and_kill_9_loses_no_job(home: Home) -> None:
    for number in range(3):
        home.polypod("pool", "add", f"job {number}", "wait" if number < 2 else "well")
    killed = home.start("pool", "run", "--runner", MINE, "--limit", "mine=2")
    _until(home, "running", 2)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    working = home.start("pool", "run", "--runner", MINE, "--limit", "mine=2")
    try:
        for job in ("job-0-1", "job-1-2"):
            while home.polypod("pool", "show", job, "--json").lines[0]["attempts"] < 2:
                pass
            assert home.polypod("pool", "cancel", job).out == f"{job} is being cancelled\n"
        out, _ = working.communicate(timeout=60)
    finally:
        working.kill()
        working.wait()
    assert sorted(line.split()[2].rstrip(":") for line in out.splitlines()) == [
        "job-0-1",
        "job-1-2",
        "job-2-3",
    ]
    ended = {
        each["id"]: (each["status"], each["attempts"]) for each in home.polypod("pool", "ls", "--json").lines
    }
    assert ended == {"job-0-1": ("cancelled", 2), "job-1-2": ("cancelled", 2), "job-2-3": ("done", 1)}


def test_jobs_that_ended_long_ago_are_forgotten_with_their_logs_and_others_never(home: Home) -> None:
    home.polypod("pool", "add", "one", "well")
    home.polypod("pool", "run", "--runner", MINE)
    home.polypod("pool", "add", "two", "well")
    assert home.polypod("pool", "gc", "--older-than", "1h").err == "0 jobs forgotten\n"
    listed = home.polypod("pool", "gc", "--older-than", "0s", "--dry-run")
    assert ("one-1" in listed.out, listed.err) == (True, "1 job would be forgotten\n")
    assert home.polypod("pool", "show", "one-1", "--log").lines
    assert home.polypod("pool", "gc", "--older-than", "0s").err == "1 job forgotten\n"
    assert [each["id"] for each in home.polypod("pool", "ls", "--json").lines] == ["two-2"]
    assert not list(home.state.rglob("one-1"))
    assert home.polypod("pool", "add", "three", "well").out == "three-3\n", "no number comes twice"


def _until(home: Home, status: str, count: int) -> None:
    while len(home.polypod("pool", "ls", "--status", status, "--json").lines) < count:
        pass


def test_a_reader_that_leaves_early_and_a_store_that_is_none_end_without_a_traceback(home: Home) -> None:
    home.polypod("pool", "add", "one", "do it")
    home.write("no.db", "not a database at all, but some words that are long enough to be one" * 20)
    done = home.polypod("pool", "ls", "--store", "sqlite:no.db")
    assert (done.code, "Traceback" in done.err) == (1, False)
    command = home.start("pool", "ls", "--json")
    assert isinstance(command, subprocess.Popen)
    assert command.stdout is not None
    command.stdout.close()
    assert command.stderr is not None
    assert "Traceback" not in command.stderr.read()
    command.wait()
    command.stderr.close()


def test_a_job_in_a_folder_whose_name_is_not_utf8_is_refused_where_it_is_added(home: Home) -> None:
    folder = home.folder / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    with home.start("pool", "add", "one", "do it", cwd=folder) as process:
        assert "is not UTF-8" in process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert home.polypod("pool", "ls", "--json").lines == []
