"""Pools of several processes on one queue, killed at any moment: every job ends once, and none is lost."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest
from warm import ROOT, Popen

from polypod import Execution, Job, PodSystem, Pool
from tests.routing.pool_kit import LISTENING, statuses

SCRIPT = str(Path(__file__).with_name("pool_process.py"))


def begin(folder: Path, *runners: str) -> subprocess.Popen[bytes]:
    """A process that works off the queue, once it does."""
    url = f"sqlite:{folder}/pods.db"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    process: subprocess.Popen[bytes] = Popen(
        [sys.executable, SCRIPT, url, str(folder), *runners],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def end(*processes: subprocess.Popen[bytes]) -> None:
    for each in processes:
        each.kill()
        each.wait()
        for stream in (each.stdin, each.stdout):
            if stream is not None:
                stream.close()


async def until_there(folder: Path, pattern: str) -> list[Path]:
    while not (found := list(folder.glob(pattern))):  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    return found


async def submitted(folder: Path, jobs: list[Job]) -> list[Execution]:
    async with PodSystem(store=f"sqlite:{folder}/pods.db") as system:
        return await Pool(system).submit_all(jobs)


async def outcomes(folder: Path, jobs: list[Execution]) -> list[Execution]:
    async with asyncio.timeout(60), PodSystem(store=f"sqlite:{folder}/pods.db") as system:
        pool = Pool(system)
        return list(await asyncio.gather(*(pool.wait_for(each.id) for each in jobs)))


async def test_killed_in_the_middle_with_two_processes_on_one_queue_every_job_ends_once_and_none_is_lost(
    tmp_path: Path,
) -> None:
    jobs = await submitted(tmp_path, [Job(f"j{number:03}", "note it") for number in range(500)])
    first, second = begin(tmp_path, "note"), begin(tmp_path, "note")
    try:
        await until_there(tmp_path, "j1??.*")
        first.kill()
        await until_there(tmp_path, "j3??.*")
        second.kill()
    finally:
        end(first, second)
    third, fourth = begin(tmp_path, "note"), begin(tmp_path, "note")
    try:
        ended = await outcomes(tmp_path, jobs)
    finally:
        end(third, fourth)
    assert statuses(ended) == {"done": 500}
    killed = (first.pid, second.pid)
    spans = defaultdict[str, list[tuple[float, float]]](list)
    for path in tmp_path.glob("j*"):
        job, _, pid = path.name.split(".")
        moments = [float(line) for line in path.read_text().splitlines()]
        if len(moments) < 2:
            assert int(pid) in killed, "only who was killed leaves a job half done"
        else:
            spans[job].append((moments[0], moments[1]))
    assert set(spans) == {each.job.name for each in jobs}
    for moments in spans.values():
        moments.sort()
        assert all(one[1] <= two[0] for one, two in pairwise(moments)), "twice at once"
    for each in ended:
        assert len(spans[each.job.name]) <= each.attempts
    again = [each for each in ended if each.attempts > 1]
    assert 0 < len(again) <= 8, "what was at work when they were killed, and nothing else"


async def test_a_job_whose_process_died_is_lost_where_that_is_its_policy(tmp_path: Path) -> None:
    jobs = await submitted(tmp_path, [Job("one", "hang", on_lost="lost"), Job("two", "hang")])
    dying = begin(tmp_path, "hang")
    try:
        await until_there(tmp_path, "two.*")
        await until_there(tmp_path, "one.*")
    finally:
        end(dying)
    working = begin(tmp_path, "note")
    try:
        one, two = await outcomes(tmp_path, jobs)
    finally:
        end(working)
    assert (one.status, one.attempts, one.agent) == ("lost", 1, "hang")
    assert "died" in str(one.error)
    assert (two.status, two.attempts, two.agent) == ("done", 2, "note")


async def test_what_a_lost_job_did_is_on_its_branch_and_its_working_copy_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    repository = tmp_path / "repository"
    repository.mkdir()
    words = "git init -q && echo a > a && git add a && git -c user.name=t -c user.email=t@t commit -qm first"
    await asyncio.to_thread(subprocess.run, words, shell=True, check=True, cwd=repository)
    job = Job("one", "begin", cwd=str(repository), workspace="worktree", on_lost="lost")
    [queued] = await submitted(tmp_path, [job])
    dying = begin(tmp_path, "begin")
    try:
        await until_there(tmp_path, "one.*")
    finally:
        end(dying)
    [copy] = tmp_path.glob("data/**/one-1-*")
    [ended] = await outcomes(tmp_path, [queued])
    assert ended.status == "lost"
    assert not copy.exists()
    show = ["git", "show", "--format=%s", "--name-only", f"polypod/{copy.name}"]
    shown = await asyncio.to_thread(subprocess.check_output, show, cwd=repository, text=True)
    assert shown.split() == ["one", "half.txt"]


async def test_the_claim_of_a_process_is_held_until_its_last_child_is_gone(tmp_path: Path) -> None:
    """Else a job would be done by the child of the dead process and by the next process at once."""
    program = Path(LISTENING[-1]).read_text()
    stubborn = (
        "import os, signal, subprocess\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
    )
    (tmp_path / "program.py").write_text(stubborn + program)
    jobs = await submitted(tmp_path, [Job("one", "wait", "shell")])
    dying = begin(tmp_path, "shell")
    try:
        await until_there(tmp_path, "pid")
        child = 0
        while not child:
            child = int((tmp_path / "pid").read_text() or 0)
        async with asyncio.timeout(60), PodSystem(store=f"sqlite:{tmp_path}/pods.db") as system:

            async def do(_: object) -> str:
                return str(Path(f"/proc/{child}").exists())

            pool = Pool(system, {"shell": do})
            while not (await pool.counts()).get(("running", "shell")):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            os.kill(dying.pid, signal.SIGKILL)
            ended = await pool.wait_for(jobs[0].id)
    finally:
        end(dying)
    assert (ended.status, ended.attempts) == ("done", 2)
    assert ended.result == "False", "the child of the first was still at work"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_process_that_is_stopped_keeps_its_jobs_and_one_that_is_killed_does_not(
    tmp_path: Path, how: signal.Signals
) -> None:
    jobs = await submitted(tmp_path, [Job("one", "hang")])
    holder = begin(tmp_path, "hang")
    try:
        await until_there(tmp_path, "one.*")
        os.kill(holder.pid, how)
        async with asyncio.timeout(60), PodSystem(store=f"sqlite:{tmp_path}/pods.db") as system:
            pool = Pool(system)
            if how == signal.SIGKILL:
                while (await pool.get(jobs[0].id)).status == "running":  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            else:
                for _ in range(3):  # of its looks for processes that are gone
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(asyncio.shield(pool.wait_for(jobs[0].id)), 0.5)
            status = (await pool.get(jobs[0].id)).status
    finally:
        end(holder)
    assert status == ("running" if how == signal.SIGSTOP else "queued")
