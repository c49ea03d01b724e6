"""The bench itself, with next to no work: every claim can be measured, and a run gives what it says."""

import json
import signal
import subprocess
import sys

import pytest
from effort import THOROUGH
from warm import Popen

from actors import PodManifest
from bench import run, run_setup
from bench.__main__ import main
from bench.before import Checkout, changes
from bench.catalogue import claim, names
from bench.child import measure
from bench.jobs import Job, NotMeasured
from bench.machine import described
from bench.markdown import page
from bench.pace import pace
from bench.peers.catalogue import PEERS, left_out
from bench.root import ROOT
from bench.running import run_jobs

#: Cases that would move this process to other cores, or that are long: left to real runs.
LEFT_OUT = (
    "another thread",
    "64 at once",
    "512 at once",
    "1000 pods",
    "paced",
    "100,000 items",
    "256 streams",
    "512 streams",
    "processes on one file",
    "calm collector",  # it would stay calm for the tests after it
)
#: Cases that take seconds however small their count is: what they measure on is long.
BULK = {
    "to its first event, among 200",  # as among 20
    "back with 10,000 items from a file",
    "a compaction, 10,000 items",
    "an extraction, 10,000 items",
    "8 new items on top of 10,000",
    "on top of 10,000 items",
    "100,000 sessions",
    "1 process on one file",
    "over HTTP",
    "turns of 100, each at its time",
    "turns of 100, all the time",
}
READINGS = '[{"metric":"time","unit":"s","value":2.0}]'
CASES = [
    (name, case.by, case.name)
    for name in names()
    for case in claim(name).cases
    if not any(word in case.name for word in LEFT_OUT) and (THOROUGH or case.name not in BULK)
]


@pytest.mark.parametrize(("name", "by", "case"), CASES)
def test_a_case_can_be_measured(name: str, by: str, case: str):
    if name == "mcp":
        pytest.importorskip("mcp", reason="the extra mcp is not installed")
    found = claim(name).find(case, by)
    readings = measure(found, "tiny")
    assert readings
    assert all(reading.value >= 0 for reading in readings)
    assert set(found.targets) <= {reading.metric for reading in readings}


@pytest.mark.parametrize("name", names())
def test_a_claim_names_each_case_once_and_stands_beside_a_floor(name: str):
    cases = claim(name).cases
    assert len({(case.name, case.by) for case in cases}) == len(cases)
    ours = {case.name for case in cases if case.kind == "ours"}
    floors = {case.name for case in cases if case.kind == "floor"}
    assert floors & ours or name == "scaling"  # a study of itself
    assert {case.name for case in cases} <= ours


def test_a_run_measures_in_fresh_processes_and_compares_with_the_floor():
    reported = []
    report = run(["slow"], effort="tiny", repeat=2, tell=lambda *step: reported.append(step))
    assert report.failed == []
    row = report.row("slow", "publish to a full queue", "time of a publish")
    assert row is not None
    assert len(row.repeats) == 2
    assert row.value.low <= row.value.median <= row.value.high
    floor = report.row("slow", "publish to a full queue", "time of a publish", "deque with a bound")
    assert floor is not None
    assert floor.times_ours is not None
    assert len(reported) >= 2 * len(claim("slow").cases)  # more where the machine was busy


def test_another_checkout_does_its_cases_in_turns_and_stands_in_the_same_tables():
    report = run(["restore"], effort="tiny", repeat=1, before=Checkout.at(ROOT))
    before = [row for row in report.rows if row.kind == "before"]
    ours = [row for row in report.rows if row.kind == "ours"]
    assert [(row.case, row.metric) for row in before] == [(row.case, row.metric) for row in ours]
    assert all(row.by.startswith("before (") and row.times_ours for row in before if row.value.median)
    assert len(changes(report)) == len(ours)
    assert "## Before and after" in page(report)


def test_a_folder_that_is_no_checkout_is_refused(tmp_path, capsys: pytest.CaptureFixture[str]):
    assert main(["restore", "--before", str(tmp_path)]) == 2
    assert "is not a checkout of polypod" in capsys.readouterr().err


def test_a_case_that_cannot_be_measured_is_reported_and_stops_nothing():
    lost = Job(
        "slow", "no such case", "polypod", "ours", (sys.executable, "-c", "raise SystemExit('too bad')")
    )
    sound = Job("slow", "some case", "polypod", "ours", (sys.executable, "-c", f"print({READINGS!r})"))
    rows, failed = run_jobs([lost, sound], 2, lambda *_: None)
    assert [(each.case, each.why) for each in failed] == [("no such case", "too bad")]
    assert [row.repeats for row in rows] == [[2.0, 2.0]]


def test_a_job_is_repeated_as_often_as_it_may_be_and_no_more():
    command = (sys.executable, "-c", f"print({READINGS!r})")
    often = Job("slow", "one case", "polypod", "ours", command)
    twice = Job("slow", "one case", "a peer", "peer", command, repeats=2)
    rows, _ = run_jobs([often, twice], 3, lambda *_: None)
    assert [len(row.repeats) for row in rows] == [3, 2]


@pytest.mark.parametrize("program", ["pass", "print('words')"])
def test_a_process_that_prints_no_readings_is_reported_as_such(program: str):
    with pytest.raises(NotMeasured, match="no readings"):
        Job("slow", "a case", "polypod", "ours", (sys.executable, "-c", program)).measure()


def test_every_case_of_a_peer_stands_beside_one_of_ours_and_has_its_program():
    for peer in PEERS:
        assert peer.script.is_file()
        for case in peer.cases:
            claim(case.claim).find(case.case, "polypod")
            whole = f"{case.claim}/{case.case}/{case.by}"  # some are put together from parts there
            marks = {"http": "_http", "durable": "durable/", "restore": "restore/", "pool": "pool/"}
            assert marks.get(case.claim, whole) in peer.script.read_text()


def test_a_name_that_is_no_claim_is_refused_with_those_that_are(capsys: pytest.CaptureFixture[str]):
    assert main(["nonsense", "--quick"]) == 2
    assert "import, start" in capsys.readouterr().err


def test_the_command_lists_all_claims(capsys: pytest.CaptureFixture[str]):
    assert main(["--list"]) == 0
    text = capsys.readouterr().out
    assert all(f"{name:<11} {claim(name).title}" in text for name in names())


def test_the_command_prints_json_lines_and_keeps_and_compares_them(tmp_path):
    kept, chart = tmp_path / "run.jsonl", tmp_path / "chart.svg"
    command = [sys.executable, "-m", "bench", "slow", "--quick", "--repeat", "1", "--json"]
    kept_where = ["--save", str(kept), "--chart", str(chart)]
    with Popen([*command, *kept_where], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        printed, _ = process.communicate()
    assert process.returncode == 0
    lines = [json.loads(line) for line in printed.splitlines()]
    assert [line["type"] for line in lines[:2]] == ["run", "row"]
    assert kept.read_text() == printed
    assert chart.read_text().startswith("<svg")
    assert main(["--compare", str(kept), str(kept)]) == 0


def test_a_set_up_of_ones_own_is_measured_from_a_program():
    result = run_setup(PodManifest.of(model="offline"), turns=3, pods=2, warmup=0)
    assert (result.model, result.pods, result.turns, result.errors) == ("offline", 2, 3, [])
    assert result.tokens_per_second is not None


def test_a_repeat_of_a_busy_moment_is_measured_again_and_the_better_pace_counts(tmp_path):
    paces = iter([1.0, 1.0, 5.0, 1.0, 1.0, 1.0])  # before and after: a calm repeat, a busy one, that again
    count = tmp_path / "count"
    program = f"""
import pathlib
seen = pathlib.Path({str(count)!r})
number = len(seen.read_text()) if seen.exists() else 0
seen.write_text("x" * (number + 1))
print('[{{"metric":"time","unit":"s","value":%d}}]' % (number + 1))
"""
    job = Job("slow", "a case", "polypod", "ours", (sys.executable, "-c", program))
    [row], failed = run_jobs([job], 2, lambda *_: None, lambda: next(paces))
    assert (row.repeats, row.pace, failed) == ([1.0, 3.0], 1.0, [])


@pytest.mark.slow
def test_each_claim_is_printed_and_kept_as_soon_as_it_is_measured(tmp_path):
    kept = tmp_path / "run.jsonl"
    assert main(["slow", "nothing-such", "--quick", "--repeat", "1"]) == 2
    words = ["slow", "durable", "--quick", "--repeat", "1", "--save", str(kept)]
    command = [sys.executable, "-m", "bench", *words]
    with Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        first = next(line for line in process.stdout if line.startswith(claim("slow").title))
        assert first
        names = {json.loads(line).get("claim") for line in kept.read_text().splitlines()}
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(60) in {0, 130}
    assert names == {None, "slow"}


def test_the_pace_of_the_machine_is_a_time():
    assert 0 < pace() < 1


def test_a_run_beside_peers_says_which_versions_they_have(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bench.peers.catalogue.VENVS", tmp_path)
    assert described(with_peers=True) == described()
    info = tmp_path / "langgraph" / "lib" / "python3.11" / "site-packages" / "langgraph-1.2.3.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: langgraph\nVersion: 1.2.3\n")
    python = tmp_path / "langgraph" / "bin" / "python"
    python.parent.mkdir()
    python.touch()
    assert described(with_peers=True).versions["langgraph"] == "1.2.3"


def test_a_run_beside_peers_says_which_are_left_out(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bench.peers.catalogue.VENVS", tmp_path)
    reported = {each.by: each for each in left_out(["restore", "slow", "durable"])}
    assert reported["openai-agents"].claim == "restore, durable"
    assert reported["openai-agents"].why.endswith("python -m bench.peers openai-agents")
    assert "pydantic-ai" not in reported  # it does no case of these
    assert left_out(["slow"]) == []
