"""Exits: each error is one clear line with a code of its own kind, and never a traceback."""

import sys
from pathlib import Path
from typing import get_args, get_type_hints

import click
import pytest

from actors.cli import errors
from protocol.errors import (
    ChainInvalid,
    ManifestError,
    MissingKey,
    ModelError,
    RunFailed,
    SessionNotFound,
    StoreError,
)
from protocol.events import RunEnd


def test_an_output_that_cannot_be_written_is_what_the_words_are_about(capfd: pytest.CaptureFixture[str]):
    def command() -> None:
        with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
            full.write("x")

    assert errors.run_guarded(command) == 1
    assert capfd.readouterr().err == "polypod: the output cannot be written: No space left on device\n"


def refusing(error: BaseException):
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ManifestError("x"), 2),
        (SessionNotFound("x"), 2),
        (MissingKey("X", what="it"), 2),
        (ChainInvalid("x"), 2),
        (click.UsageError("x"), 2),
        (StoreError("x"), 1),
        (RunFailed(ModelError("x", kind="connection")), 1),
        (ZeroDivisionError("x"), 1),
        (KeyboardInterrupt(), 130),
        (errors.Exit(3), 3),
    ],
)
def test_each_kind_of_error_has_its_exit_code(
    error: BaseException, code: int, capfd: pytest.CaptureFixture[str]
):
    assert errors.run_guarded(refusing(error)) == code
    assert "Traceback" not in capfd.readouterr().err


def test_an_error_is_one_line_and_its_hint_another(capfd: pytest.CaptureFixture[str]):
    errors.run_guarded(refusing(StoreError("the disk\nis full", hint="make room")))
    assert capfd.readouterr().err == "polypod: the disk is full\n  hint: make room\n"


def test_a_usage_error_says_where_help_is(capfd: pytest.CaptureFixture[str]):
    errors.run_guarded(refusing(click.UsageError("the task is empty.")))
    assert capfd.readouterr().err == "polypod: the task is empty\n  hint: see polypod --help\n"


def test_a_group_of_commands_that_is_given_none_prints_its_help(capfd: pytest.CaptureFixture[str]):
    group = click.Group("pool", help="Jobs.", commands=[click.Command("ls", help="List them.")])
    assert errors.run_guarded(lambda: group(args=[], prog_name="pool", standalone_mode=False)) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("Usage: pool ")
    assert "\n  ls  List them.\n" in err


def test_a_defect_is_reported_as_one_and_shown_on_demand(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    errors.run_guarded(refusing(ZeroDivisionError("oops")))
    assert "internal error: ZeroDivisionError: oops" in capfd.readouterr().err
    monkeypatch.setenv("POLYPOD_DEBUG", "1")
    errors.run_guarded(refusing(ZeroDivisionError("oops")))
    assert "Traceback" in capfd.readouterr().err


def test_an_error_of_the_system_names_its_file(capfd: pytest.CaptureFixture[str]):
    errors.run_guarded(lambda: Path("/nowhere/at/all").read_text())
    assert capfd.readouterr().err == "polypod: /nowhere/at/all: No such file or directory\n"


def test_every_outcome_has_an_exit_code():
    outcomes = get_args(get_type_hints(RunEnd)["outcome"])
    assert set(errors.CODES) == set(outcomes)
    assert {errors.CODES[outcome] for outcome in outcomes} == {0, 1, 3, 4, 130}


def test_what_went_well_is_zero(capfd: pytest.CaptureFixture[str]):
    assert errors.run_guarded(lambda: sys.stdout.write("done\n")) == 0
    assert capfd.readouterr() == ("done\n", "")
