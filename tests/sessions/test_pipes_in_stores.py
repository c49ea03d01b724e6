"""Pipes and devices in the place of a store, or of what it keeps for itself: nobody waits for who writes to them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from store_kit import make

from actors.sessions.answers import wait
from actors.sessions.jsonl.store import JsonLinesStore
from actors.sessions.sqlite.store import SQLiteStore
from protocol.approval import ApprovalAnswer
from protocol.errors import StoreError

ANSWER = ApprovalAnswer("a", "s", approved=True, at=1.0)


@pytest.mark.parametrize("place", ["log", "gate", "pipe.lock"])
def test_a_pipe_beside_a_database_is_not_waited_for(tmp_path: Path, place: str) -> None:
    writers = tmp_path / "pods.db.writers"
    writers.mkdir(mode=0o700)
    os.mkfifo(writers / place)
    store = SQLiteStore(tmp_path / "pods.db")
    make(store, "s", "one")
    assert store.put_answer(ANSWER)
    store.close()


def test_a_pipe_or_a_device_in_the_place_of_a_database_is_refused_as_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in tmp_path / "pipe", tmp_path, Path("/dev/null"):
        with pytest.raises(StoreError, match="it is not a regular file"):
            SQLiteStore(path)


def test_a_pipe_in_the_place_of_a_claim_is_not_waited_for(tmp_path: Path) -> None:
    store = JsonLinesStore(tmp_path)
    make(store, "s", "one", claim=False)
    os.mkfifo(tmp_path / ".polypod" / "claims" / "s.jsonl")
    with pytest.raises(StoreError, match="cannot use"):
        store.claim("s", "pod")
    store.close()


def test_a_pipe_in_the_place_of_answers_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    store = JsonLinesStore(tmp_path)
    os.mkfifo(tmp_path / ".polypod" / "answers.jsonl")
    assert wait(store.answers(["a"])) == []
    for use in (lambda: store.put_answer(ANSWER), lambda: store.answers_since(None)):
        with pytest.raises(StoreError, match="cannot use"):
            use()
    store.close()


@pytest.mark.parametrize("place", ["claims", "writers"])
def test_a_file_where_a_folder_has_to_be_says_so(tmp_path: Path, place: str) -> None:
    (tmp_path / ".polypod").mkdir(mode=0o700)
    (tmp_path / ".polypod" / place).touch()
    with pytest.raises(StoreError, match="a file is where a folder is needed"):
        JsonLinesStore(tmp_path)


def test_a_device_in_the_place_of_what_a_store_keeps_beside_is_not_read_without_end(tmp_path: Path) -> None:
    store = JsonLinesStore(tmp_path)
    make(store, "s", "one", claim=False)
    (tmp_path / ".polypod" / "claims" / "s.jsonl").symlink_to("/dev/zero")
    (tmp_path / ".polypod" / "answers.jsonl").symlink_to("/dev/zero")
    assert store.holder("s") is None
    assert wait(store.answers(["a"])) == []
    store.close()
