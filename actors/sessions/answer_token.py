"""``AnswerToken``: proves that an answer to an approval comes from someone who can read the user's private
file.

Anyone who can write to a store can add an answer to it. So that this alone approves nothing, an answer
carries a proof (HMAC-SHA256 of everything it says), keyed with a token in a file of the user's that is
outside every scope.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from functools import lru_cache
from pathlib import Path

import msgspec

from actors.runtime.user_folders import make_private, state_path
from actors.sessions.disk import name_file
from protocol.approval import ApprovalAnswer
from protocol.errors import StoreError

#: The name of the file in the user's state folder.
_NAME = "approval-token"
#: The size of a token in bytes.
_SIZE = 32
_HINT = "choose another state folder with $XDG_STATE_HOME"


class AnswerToken:
    """A user's token. Each token has its own ``id``, which does not reveal the token."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.id = hashlib.sha256(b"polypod approval token\0" + secret).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"<AnswerToken {self.id}>"

    def sign(self, answer: ApprovalAnswer) -> ApprovalAnswer:
        """The answer with its proof."""
        return msgspec.structs.replace(answer, proof=self._proof(answer))

    def proves(self, answer: ApprovalAnswer) -> bool:
        """Whether the answer has the proof that this token gives it."""
        return answer.proof is not None and hmac.compare_digest(
            answer.proof.encode(errors="replace"), self._proof(answer).encode()
        )

    def _proof(self, answer: ApprovalAnswer) -> str:
        plain = answer if answer.proof is None else msgspec.structs.replace(answer, proof=None)
        said = msgspec.json.encode(plain, order="sorted")  # a store may return keys in another order
        return hmac.digest(self._secret, said, "sha256").hex()


def answer_token() -> AnswerToken:
    """The token in the current user's file, which is created if it does not exist. Raises StoreError."""
    path = state_path() / _NAME
    if (mark := _mark_of(path)) is None:
        try:
            _make(path)
        except OSError as error:
            why = f"cannot create the token that signs approvals, {path}: {error.strerror}"
            raise StoreError(why, hint=_HINT) from error
        mark = _mark_of(path)
    return _token_in(path, mark)


def _mark_of(path: Path) -> object:
    """A value that changes with the file; None if it does not exist."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_mode, found.st_uid, found.st_size, found.st_ctime_ns)


@lru_cache(maxsize=8)
def _token_in(path: Path, _: object) -> AnswerToken:
    """The token in a file. Raises StoreError."""
    try:
        return AnswerToken(_read(path))
    except OSError as error:
        raise StoreError(
            f"cannot read the token that signs approvals, {path}: {error.strerror}", hint=_HINT
        ) from error


def _read(path: Path) -> bytes:
    # Without waiting for a pipe that somebody has put there.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        secret = file.read(_SIZE + 1) if stat.S_ISREG(found.st_mode) else b""
    why = None
    if found.st_uid != os.geteuid():
        why = "belongs to another user, so it proves nothing"
    elif found.st_mode & 0o077:
        why = "can be read by other users, so it proves nothing"
    elif len(secret) != _SIZE:
        why = "is not a token"
    if why is not None:
        raise StoreError(f"{path} {why}", hint=f"delete it, so that a new one is created: rm {path}")
    return secret


def _make(path: Path) -> None:
    """Create the file, complete from the start, unless another process is faster."""
    make_private(path.parent)
    draft = path.with_name(f"{_NAME}.{os.getpid()}-{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_SIZE))
        with contextlib.suppress(FileExistsError):
            name_file(draft, path)
    finally:
        draft.unlink(missing_ok=True)
