"""What a run of the bench gives: rows with spreads, targets and ratios, kept as JSON lines and compared."""

import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from bench import chart, markdown, quotes, table, words
from bench.claim import at_most_times
from bench.compare import compare
from bench.ratios import ratios
from bench.results import Machine, Reading, Report, Row, Spread, Target, read_report
from bench.running import beside_ours

MACHINE = Machine(2, "Linux x86_64", "CPython 3.11", {"pykka": "4.5.0"})


def a_row(
    values, *, by="polypod", kind="ours", unit="s", metric="time of a turn", case="one pod", limit=None
):
    spread = Spread.of(values)
    target = None if limit is None else Target(limit, at_least=unit == "/s")
    return Row(
        claim="turn",
        case=case,
        by=by,
        kind=kind,
        metric=metric,
        unit=unit,
        value=spread,
        repeats=list(values),
        target=target,
        met=None if target is None else target.met(spread.median),
    )


def a_report(*rows):
    return Report(MACHINE, "quick", 3, 1.0, list(rows), [])


def test_a_report_survives_its_json_lines(tmp_path: Path):
    report = a_report(a_row([1e-6, 2e-6, 3e-6], limit=4e-6), a_row([5.0], by="asyncio", kind="floor"))
    file = tmp_path / "run.jsonl"
    file.write_bytes(b"\n".join(report.lines()))
    assert read_report(file) == report


@pytest.mark.parametrize("text", ["", '{"type":"row"}', "not json"])
def test_a_file_that_is_no_run_is_refused_by_name(tmp_path: Path, text: str):
    file = tmp_path / "other.jsonl"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"other\.jsonl"):
        read_report(file)


def test_a_target_is_judged_by_the_median_and_its_direction():
    assert a_row([30e-6, 31e-6, 90e-6], limit=40e-6).met is True
    assert a_row([30e-6, 41e-6, 42e-6], limit=40e-6).met is False
    assert a_row([40e3, 60e3, 70e3], unit="/s", limit=50e3).met is True


def test_a_target_may_be_so_many_times_a_floor_of_the_same_run():
    wanted = at_most_times(1.5, "sockets")
    ours = msgspec.structs.replace(a_row([14e-6]), target=wanted)
    held, floor = beside_ours([ours, a_row([10e-6], by="sockets", kind="floor")])
    assert held.met is True
    assert held.target.limit == pytest.approx(15e-6)
    assert words.target(held.target, "s") == "<= 1.50x sockets, 15.0 us"
    assert floor.target is None
    missed, _ = beside_ours([ours, a_row([9e-6], by="sockets", kind="floor")])
    assert missed.met is False


def test_without_the_floor_there_is_no_such_target():
    [row] = beside_ours([msgspec.structs.replace(a_row([14e-6]), target=at_most_times(1.5, "sockets"))])
    assert (row.target, row.met) == (None, None)


def test_floors_and_peers_say_how_many_times_our_cost_is_theirs():
    ours = a_row([10e-6])
    rate = a_row([1000.0], unit="/s", metric="starts")
    rows = beside_ours(
        [
            ours,
            a_row([1e-6], by="loop", kind="floor"),
            a_row([80e-6], by="other", kind="peer"),
            rate,
            a_row([100.0], unit="/s", metric="starts", by="other", kind="peer"),
            a_row([100.0], metric="something else", by="other", kind="peer"),
        ]
    )
    assert [row.times_ours for row in rows] == [None, pytest.approx(0.1), pytest.approx(8), None, 10.0, None]


def test_a_change_counts_only_beyond_the_spread_of_both_runs():
    before = a_report(
        a_row([10, 11, 12], case="a"),
        a_row([10, 10, 10], case="b"),
        a_row([10, 10], case="c"),
        a_row([1], case="d"),
    )
    after = a_report(
        a_row([12, 14, 15], case="a"),
        a_row([20, 21, 22], case="b"),
        a_row([5, 5], case="c"),
        a_row([1], case="e"),
    )
    verdicts = {change.case: change.verdict for change in compare(before, after)}
    assert verdicts == {
        "a": "same",
        "b": "worse",
        "c": "better",
        "d": "only in the first",
        "e": "only in the second",
    }


def test_few_repeats_show_too_little_of_the_noise_and_are_taken_wider():
    before, after = a_report(a_row([10, 11])), a_report(a_row([12, 13]))
    assert compare(before, after)[0].verdict == "same"
    before, after = a_report(a_row([10, 10.5, 11] * 2)), a_report(a_row([12, 12.5, 13] * 2))
    assert compare(before, after)[0].verdict == "worse"


def test_a_rate_by_the_wall_that_the_processor_did_not_notice_is_no_change():
    def rate(wall, cpu):
        row = a_row([wall] * 5, unit="/s")
        return a_report(msgspec.structs.replace(row, clock="wall", other=Spread.of([cpu] * 5)))

    assert compare(rate(100, 100), rate(40, 101))[0].verdict == "same"
    assert compare(rate(100, 100), rate(40, 50))[0].verdict == "worse"


def test_where_the_machine_had_another_pace_a_change_shows_with_it_and_without():
    def at(pace, value):
        return a_report(msgspec.structs.replace(a_row([value] * 5), clock="cpu", pace=pace))

    assert compare(at(1.0, 10), at(1.5, 15))[0].verdict == "same"
    assert compare(at(1.0, 10), at(1.5, 10))[0].verdict == "same"
    (change,) = compare(at(1.0, 10), at(1.5, 30))
    assert (change.verdict, change.times) == ("worse", pytest.approx(3))
    assert compare(at(1.0, 10), at(1.5, 5))[0].verdict == "better"
    memory = a_report(msgspec.structs.replace(a_row([10] * 5, unit="B"), pace=1.0))
    more = a_report(msgspec.structs.replace(a_row([15] * 5, unit="B"), pace=1.5))
    assert compare(memory, more)[0].verdict == "worse"  # bytes do not depend on it


def test_more_a_second_is_better():
    (change,) = compare(a_report(a_row([10, 11], unit="/s")), a_report(a_row([20, 21], unit="/s")))
    assert change.verdict == "better"


def test_a_steady_difference_of_no_size_is_no_news():
    (change,) = compare(a_report(a_row([1.0, 1.0])), a_report(a_row([1.01, 1.01])))
    assert change.verdict == "same"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (12.34e-6, "s", "12.3 us"),
        (0.75e-3, "s", "750 us"),
        (3.2e-9, "s", "3.20 ns"),
        (2690, "B", "2.69 KB"),
        (82_100, "/s", "82.1k/s"),
        (1.05e6, "/s", "1.05M/s"),
        (7, "count", "7"),
    ],
)
def test_numbers_are_reported_in_the_unit_that_fits(value, unit, text):
    assert words.number(value, unit) == text


def test_the_table_says_what_is_met_and_what_is_missed():
    console = Console(record=True, width=160, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    report = a_report(a_row([30e-6], limit=40e-6), a_row([60e-6], case="1000 pods at once", limit=40e-6))
    table.show(report, console)
    text = console.export_text()
    console.file.close()
    assert "30.0 us" in text
    assert "<= 40.0 us" in text
    assert "MISSED" in text
    assert "1 of 2 targets met" in text


def test_the_chart_is_sound_svg_with_a_dot_for_each_that_has_a_target():
    report = a_report(
        a_row([30e-6, 35e-6], limit=40e-6),
        a_row([1e-6], by="loop", kind="floor"),
        a_row([5e-3], by="a & b", kind="peer"),
        a_row([1.0], metric="no target"),
    )
    root = ET.fromstring(chart.drawn(report))
    titles = [title.text for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == ["loop: 1.00 us", "a & b: 5.00 ms", "polypod: 32.5 us (<= 40.0 us)"]


def with_peers():
    return a_report(
        *beside_ours(
            [
                a_row([30e-6], limit=20e-6),
                a_row([60e-6], by="one", kind="peer"),
                a_row([90e-6], by="other", kind="peer"),
                a_row([1e-6], by="loop", kind="floor"),
                a_row([100.0], unit="/s", metric="asks"),
                a_row([250.0], unit="/s", metric="asks", by="other", kind="peer"),
            ]
        )
    )


def test_the_ratio_is_to_the_best_peer_and_says_so_where_that_is_better():
    assert [(each.peer.by, each.words) for each in ratios(with_peers())] == [
        ("one", "polypod 2.0x"),
        ("other", "PEER 2.5x"),
    ]


def test_the_page_shows_what_was_missed_and_where_a_peer_is_better():
    text = markdown.page(with_peers())
    assert "| turn | one pod | time of a turn | 30.0 us | <= 20.0 us |" in text
    assert "**PEER 2.5x**" in text
    assert "**0 of 1 targets met.**" in text


def test_a_reading_is_reported_with_both_clocks():
    row = Row("c", "x", "polypod", "ours", "t", "s", Spread.of([1e-3]), [1e-3], "cpu", Spread.of([2e-3]))
    assert words.other(row) == "2.00 ms wall"
    assert Reading("t", "s", 1.0).clock is None


def test_figures_that_a_run_lacks_are_not_quoted():
    with pytest.raises(ValueError, match="has no import, import actors, time: measure all"):
        quotes.quote(f"{quotes.BEGIN}{quotes.END}", "# Results of the last run (quick)\n\n## turn: a run\n")
