"""``ConfigFile``: a ``polypod.toml`` that was found and read, and whether it may be followed."""

from __future__ import annotations

import hashlib
import stat
from functools import cached_property
from pathlib import Path

from actors.config.needs import needs_of
from actors.config.trust import had_trust, has_trust
from actors.config.working_copies import origin_of
from actors.runtime.user_folders import configuration_path
from protocol.config import Config, config_of
from protocol.errors import ConfigError, ManifestError, NotTrusted
from protocol.files import read_file
from protocol.toml import decode_toml

#: The name of the file, in a project's folder and in the user's configuration folder.
NAME = "polypod.toml"
#: Bytes that such a file has at most.
_LARGEST = 1 << 20


class ConfigFile:
    """A file as it was when it was read. ``is_own`` is the one in the user's own configuration folder."""

    def __init__(self, path: Path, data: bytes, *, is_own: bool) -> None:
        """Raises ConfigError."""
        self.path, self.is_own = path, is_own
        self.digest = hashlib.sha256(data).hexdigest()
        self.config = _decode(data, path)

    def __repr__(self) -> str:
        return f"<ConfigFile {self.path}>"

    @cached_property
    def needs(self) -> tuple[str, ...]:
        """What in the file a person must have looked at, a line each."""
        return tuple(needs_of(self.config, self.path.parent))

    @property
    def was_looked_at(self) -> bool:
        """Whether it is the user's own, or a person has looked at it as it is now."""
        return self.is_own or has_trust(self.path, self.digest)

    @property
    def is_trusted(self) -> bool:
        """Whether all of it may be followed: a person has looked at it, or nothing in it requires that."""
        return not self.needs or self.was_looked_at

    def trusted(self) -> Config:
        """All of it. Raises NotTrusted."""
        if self.is_trusted:
            return self.config
        why = "has changed since it was reviewed" if had_trust(self.path) else "belongs to a project"
        raise NotTrusted(
            f"{self.path} {why}, and makes polypod start or send things that need a review: "
            f"{self.needs[0]}" + (f", and {len(self.needs) - 1} more" if len(self.needs) > 1 else ""),
            hint="review and trust it with `polypod config trust`, at a terminal",
        )


def find_files(folder: Path | None = None) -> tuple[ConfigFile, ...]:
    """The files that apply in ``folder`` (by default the working directory), nearest first: the first one
    found upwards, and the user's own. In the working copy of a job they are those of the folder that it was
    made from. Raises ConfigError.
    """
    own = configuration_path() / NAME
    files = []
    for path in _upwards(folder):
        if not _is_same(path, own) and (data := _read(path)) is not None:
            files.append(ConfigFile(path, data, is_own=False))
            break
    if (data := _read(own)) is not None:
        files.append(ConfigFile(own.resolve(), data, is_own=True))
    return tuple(files)


def _upwards(folder: Path | None) -> list[Path]:
    try:
        start = origin_of((Path() if folder is None else folder).resolve(strict=True))
    except OSError:  # a working directory that is gone has no file
        return []
    return [each / NAME for each in (start, *start.parents)]


def _is_same(path: Path, own: Path) -> bool:
    try:
        return path.samefile(own)
    except OSError:
        return False


def _read(path: Path) -> bytes | None:
    """The content of the file; None if there is none. Raises ConfigError."""
    try:
        data = read_file(path, _LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if _is_placeholder(path):
            return None
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror or error}", hint="check its permissions, or remove it"
        ) from error
    if len(data) > _LARGEST:
        raise ConfigError(f"{path}: is larger than {_LARGEST:,} bytes, too large for a configuration file")
    return data


def _is_placeholder(path: Path) -> bool:
    """Whether it is the placeholder of a file that confined programs must not create: a folder that nobody
    writes in, which exists as long as they run.
    """
    try:
        mode = path.lstat().st_mode
    except OSError:  # it is gone
        return True
    return stat.S_ISDIR(mode) and not mode & stat.S_IWUSR


def _decode(data: bytes, path: Path) -> Config:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text", hint="save it as UTF-8") from error
    try:
        table = decode_toml(text, str(path))
    except ManifestError as error:
        raise ConfigError(error.message, hint=error.hint) from None
    return config_of(table, str(path), path.parent)
