"""An answer proves that it is from who may read the user's token, and no other file does."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.runtime.user_folders import state_path
from actors.sessions import answer_token as module
from actors.sessions.answer_token import AnswerToken, answer_token
from protocol.approval import ApprovalAnswer
from protocol.errors import StoreError

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
)
_ANSWERS = st.builds(
    ApprovalAnswer,
    st.text(st.characters(codec="utf-8")),
    st.text(st.characters(codec="utf-8")),
    approved=st.booleans(),
    at=st.floats(0, 2e9),
    always=st.booleans(),
    arguments=st.none() | st.dictionaries(st.text(st.characters(codec="utf-8")), _JSON),
    note=st.none() | st.text(st.characters(codec="utf-8")),
)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return state_path() / "approval-token"


def test_the_token_is_the_users_alone_and_made_once(path: Path) -> None:
    assert not path.exists()
    token = answer_token()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    before = path.read_bytes()
    assert answer_token().id == token.id
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert before.hex() not in f"{token!r}{token.id}"


def test_of_many_that_make_a_token_in_once_one_does(path: Path) -> None:
    def make(_: int) -> bytes:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        module._make(path)
        return path.read_bytes()

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(make, range(16)))) == 1
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.chmod(0o644), "can be read by other users"),
        (lambda path: path.write_bytes(b"short"), "is not a token"),
        (lambda path: path.write_bytes(b"x" * 33), "is not a token"),
        (lambda path: (path.unlink(), os.mkfifo(path, 0o600)), "is not a token"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot read"),
        (lambda path: (path.rename(path.with_name("there")), path.symlink_to("there")), "cannot read"),
    ],
)
def test_a_file_that_proves_nothing_is_refused_with_words(path: Path, spoil: Any, words: str) -> None:
    answer_token()
    spoil(path)
    with pytest.raises(StoreError, match=words):
        answer_token()


def test_a_token_that_is_replaced_or_deleted_proves_nothing_from_then_on(path: Path) -> None:
    first = answer_token()
    signed = first.sign(ApprovalAnswer("a", "s", approved=True, at=1.0))
    path.with_name("other").write_bytes(b"x" * 32)
    path.with_name("other").chmod(0o600)
    path.with_name("other").rename(path)
    replaced = answer_token()
    path.unlink()
    made = answer_token()
    assert len({first.id, replaced.id, made.id}) == 3
    assert answer_token() is made
    assert not made.proves(signed)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file away")
def test_a_file_of_another_user_who_knows_it_is_refused(path: Path) -> None:
    answer_token()
    os.chown(path, 65534, 65534)
    with pytest.raises(StoreError, match="belongs to another user"):
        answer_token()


@given(_ANSWERS)
def test_a_proof_survives_the_wire_and_is_of_that_answer_alone(answer: ApprovalAnswer) -> None:
    token, other = AnswerToken(b"a" * 32), AnswerToken(b"b" * 32)
    signed = token.sign(answer)
    again = msgspec.json.decode(msgspec.json.encode(signed), type=ApprovalAnswer)
    assert token.proves(again)
    assert not token.proves(answer)
    assert not other.proves(again)
    assert other.id != token.id
    for change in (
        {"approval_id": f"{answer.approval_id}x"}, {"session_id": f"{answer.session_id}x"}, {"at": answer.at + 1.0},
        {"approved": not answer.approved}, {"always": not answer.always}, {"note": f"{answer.note}x"},
        {"arguments": {**(answer.arguments or {}), "more": 1}}, {"proof": "é"}, {"proof": ""},
    ):  # fmt: skip
        assert not token.proves(msgspec.structs.replace(signed, **change))


def test_keys_in_another_order_are_the_same_arguments() -> None:
    token = AnswerToken(b"a" * 32)
    signed = token.sign(ApprovalAnswer("a", "s", approved=True, at=1.0, arguments={"b": 1, "a": 2}))
    assert token.proves(msgspec.structs.replace(signed, arguments={"a": 2, "b": 1}))
