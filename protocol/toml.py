"""TOML as people write it: decoded, or refused with what is wrong and what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from protocol.errors import ManifestError
from protocol.files import read_file
from protocol.foreign import shown
from protocol.text import encodable

#: Bytes that a file has at most.
_LARGEST = 1 << 24


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The data of a file that is ``what`` ("a manifest"). Raises ManifestError, which names it."""
    where = encodable(str(path))
    try:
        data = read_file(path, _LARGEST + 1, pipes=True)
        if len(data) > _LARGEST:
            raise ManifestError(f"{where}: is larger than {_LARGEST:,} bytes, too large for {what}")
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ManifestError(
            f"{where}: cannot be read: {error.strerror or error}",
            hint=f"give the path of {what} in TOML",
        ) from error
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"{where}: is not UTF-8 text",
            hint=f"{what} is a TOML file: save this file as UTF-8, or give the path of another",
        ) from error
    return decode_toml(text.replace("\r\n", "\n").replace("\r", "\n"), where)


def decode_toml(text: str, where: str) -> dict[str, Any]:
    """The data of a TOML text; ``where`` names it in errors. Raises ManifestError."""
    if not isinstance(text, str):
        raise ManifestError(f"{where}: expected a string in TOML, got {shown(text)}")
    try:
        data: dict[str, Any] = msgspec.toml.decode(text.removeprefix("\ufeff"))
    except msgspec.DecodeError as error:
        raise ManifestError(
            f"{where}: not valid TOML: {error}",
            hint='put strings in quotes, as in name = "reviewer", and begin sections with a line like [pod]',
        ) from None
    except (RecursionError, ValueError) as error:  # what the decoder does not make its own
        deep = isinstance(error, RecursionError)
        words = "its lists or tables are nested too deeply" if deep else "a number has too many digits"
        raise ManifestError(f"{where}: cannot be read: {words}") from None
    return data
