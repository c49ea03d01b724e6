"""`polypod doctor` says what the machine can do, and fails only where what is set up cannot work."""

import json
import os
import tempfile

from click.testing import CliRunner

from actors.cli.doctor import doctor


def reported(*words: str) -> tuple[int, dict[str, dict[str, str]]]:
    done = CliRunner().invoke(doctor, ["--json", *words])
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    code = getattr(done.exception, "code", done.exit_code)
    return code, {line["name"]: line for line in lines}


def test_a_store_that_is_not_there_yet_is_fine(tmp_path):
    code, checks = reported("--store", f"sqlite:{tmp_path}/new.db")
    assert code == 0
    assert checks["store"]["status"] == "ok"
    assert checks["python"]["status"] == "ok"
    assert not (tmp_path / "new.db").exists()
    assert all(
        "todo" in each for name, each in checks.items() if each["status"] == "missing" and name != "seccomp"
    )


def test_a_store_that_cannot_be_opened_is_a_failure_with_what_to_do(tmp_path):
    (tmp_path / "bad.db").write_bytes(b"no database at all" * 100)
    code, checks = reported("--store", f"sqlite:{tmp_path}/bad.db")
    assert code == 1
    assert checks["store"]["status"] == "failed"
    assert checks["store"]["todo"]


def test_it_says_what_commands_can_be_confined_by():
    _, checks = reported()
    assert checks["sandbox"]["text"]
    if checks["sandbox"]["status"] == "ok":
        assert checks["namespaces"]["status"] == checks["seccomp"]["status"] == "ok"
        assert "sudo" in checks["sandbox"]["text"]


def test_a_store_that_cannot_be_made_or_written_is_a_failure(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    code, checks = reported("--store", f"sqlite:{tmp_path}/file/new.db")
    assert code == 1
    assert "file is in the way" in checks["store"]["text"]
    refused = tmp_path / "refused"
    refused.mkdir()
    monkeypatch.setattr(os, "access", lambda place, _: place != refused)  # root may write anywhere
    code, checks = reported("--store", f"jsonl:{refused}/deep/new")
    assert code == 1
    assert "refused is in the way" in checks["store"]["text"]
    code, checks = reported("--store", f"jsonl:{refused}")
    assert code == 1
    assert checks["store"]["text"].endswith("can be opened, but not written")


def test_where_no_home_for_programs_can_be_made_that_is_one_of_the_findings(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    code, checks = reported()
    assert (code, checks["sandbox"]["status"]) == (1, "failed")
    assert "TMPDIR" in checks["sandbox"]["todo"]
