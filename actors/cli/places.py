"""Where the command keeps sessions and notes: the user's state folder, unless something else is named."""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from pathlib import Path

import click

from actors.runtime.arguments import path_of
from actors.runtime.user_folders import make_private, state_path
from protocol.errors import StoreError
from protocol.text import is_encodable


def default_store() -> str:
    """The URL of the file in the user's state folder, which is made. Raises StoreError."""
    return f"sqlite:{state_folder() / 'pods.db'}"


def store_option(store: str) -> str:
    """The option that names a store which is not the default one."""
    with suppress(StoreError):  # there is no folder for a default one
        if store == default_store():
            return ""
    return f" --store {shlex.quote(store)}"


def working_folder(cwd: Path | None) -> Path:
    """The folder that ``--cwd`` names for an agent or a job, by default the current one. Raises UsageError,
    InvalidInput.
    """
    place = path_of("--cwd", cwd or Path()).resolve()
    if not place.is_dir():
        raise click.UsageError(f"there is no directory {place}")
    if not is_encodable(str(place)):
        raise click.UsageError(f"no agent or job can work in {place}: its name is not UTF-8")
    return place


def memory_folder() -> Path:
    """The folder of lasting memory: $POLYPOD_MEMORY, else one beside the default store; nothing is made.
    Raises InvalidInput.
    """
    named = os.environ.get("POLYPOD_MEMORY")
    return path_of("$POLYPOD_MEMORY", named) if named else state_path() / "memory"


def state_folder() -> Path:
    """The folder of the default store; it is made, for its owner alone. Raises StoreError."""
    folder = state_path()
    try:
        make_private(folder)
    except OSError as error:
        raise StoreError(
            f"cannot create the state folder {folder}: {error.strerror}",
            hint="choose another store with --store or $POLYPOD_STORE, or another folder with "
            "$XDG_STATE_HOME",
        ) from error
    return folder
