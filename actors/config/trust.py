"""Trust: a person's word that they have looked at a project's ``polypod.toml`` as it is now.

Kept in the user's state folder, which is outside every scope: a file for each content that was looked at,
named after the path and the content, with the path in it. A file that changes in a single byte has to be
looked at again.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from actors.runtime.user_folders import make_private, state_path
from protocol.errors import StoreError

#: The folder in the user's state folder.
_NAME = "trusted"


def has_trust(path: Path, digest: str) -> bool:
    """Whether the file at ``path`` was looked at when its content had that SHA-256."""
    return _mark(path, digest).is_file()


def had_trust(path: Path) -> bool:
    """Whether the file was ever looked at."""
    return any(_marks(path))


def trust(path: Path, digest: str) -> None:
    """Record that the file was looked at as it is now; trust in earlier contents is forgotten. Raises
    StoreError.
    """
    mark = _mark(path, digest)
    try:
        make_private(mark.parent)
        before = list(_marks(path))
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(mark, flags, 0o600), "wb") as file:
            file.write(os.fsencode(path) + b"\n")
        for each in before:
            if each != mark:
                each.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot save the trust of files in {mark.parent}: {error.strerror}",
            hint="choose another state folder with $XDG_STATE_HOME",
        ) from error


def distrust(path: Path) -> bool:
    """Forget that the file was looked at; returns whether it was. Raises OSError."""
    marks = list(_marks(path))
    for each in marks:
        each.unlink(missing_ok=True)
    return bool(marks)


def _mark(path: Path, digest: str) -> Path:
    return state_path() / _NAME / f"{_key(path)}-{digest}"


def _marks(path: Path) -> list[Path]:
    return list((state_path() / _NAME).glob(f"{_key(path)}-*"))


def _key(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
