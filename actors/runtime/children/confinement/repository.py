"""Lets confined programs make a git repository where there is none, and takes it over when they have ended.

The programs see a folder ``NEW`` as the ``.git``. When the last of them has ended, what they made there
replaces the ``.git``, without anything that has git run commands. So it is safe to use git there. Until then
git does not take the ``.git`` for a repository, and searches the folders above.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat

from actors.runtime.children.trees import empty_folder

#: The only content of a ``.git`` that is not a repository yet.
NEW = "polypod-new"
#: What is taken over, if it is a folder or a file as it should be; ``HEAD`` comes last, since it makes the
#: repository.
_FOLDERS = ("objects", "refs", "logs", "info", "reftable")
_FILES = ("description", "packed-refs", "shallow", "index", "ORIG_HEAD", "COMMIT_EDITMSG", "HEAD")
#: The settings that describe a repository's format, and their values.
_TRUTH = r"true|false"
_SETTINGS = {
    "core": {
        "repositoryformatversion": r"[01]",
        "filemode": _TRUTH,
        "bare": r"false",
        "logallrefupdates": _TRUTH,
        "ignorecase": _TRUTH,
        "symlinks": _TRUTH,
        "precomposeunicode": _TRUTH,
    },
    "extensions": {"objectformat": r"sha1|sha256", "refstorage": r"files|reftable"},
}
_SECTION = re.compile(r"\[([a-z]+)\]")
_SETTING = re.compile(r"([a-z]+)\s*=\s*([a-z0-9]+)")
_MOST_CONFIG = 65536
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def is_unmade(path: str | bytes | int) -> bool:
    """Whether a ``.git`` does not exist, or no repository was made in it yet."""
    try:
        # Nothing can be made in place of a symlink.
        if not isinstance(path, int) and stat.S_ISLNK(os.lstat(path).st_mode):
            return False
        return set(os.listdir(path)) <= {NEW, NEW.encode()}
    except FileNotFoundError:
        return True
    except OSError:
        return False


def prepare(folder: int) -> None:
    """Prepare an empty ``.git`` in which programs can make a repository. Raises OSError."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(NEW, 0o700, dir_fd=folder)


def finish(folder: int) -> bool:
    """Take over the repository that programs made in a prepared ``.git``, and remove everything else they
    left there. Returns whether there is a repository; one that was made from outside is left alone.

    Raises OSError.
    """
    try:
        os.rmdir(NEW, dir_fd=folder)  # usually they have made none
    except FileNotFoundError:
        return False
    except OSError:
        pass
    else:
        return False
    if not is_unmade(folder):
        return True
    new = os.open(NEW, _FOLDER, dir_fd=folder)
    try:
        is_made = _is_repository(new)
        if is_made:
            _take_over(new, folder)
        empty_folder(new)
    finally:
        os.close(new)
    os.rmdir(NEW, dir_fd=folder)
    return is_made


def format_settings(config: bytes) -> bytes:
    """Only the settings that describe the format of a repository: none of them has git run anything, or look
    elsewhere.
    """
    found: dict[str, dict[str, str]] = {name: {} for name in _SETTINGS}
    section = ""
    for line in config.decode("utf-8", "replace").splitlines():
        text = line.strip().lower()
        if head := _SECTION.fullmatch(text):
            section = head[1]
        elif text.startswith("["):
            section = ""
        elif (setting := _SETTING.fullmatch(text)) and section in _SETTINGS:
            form = _SETTINGS[section].get(setting[1])
            if form is not None and re.fullmatch(form, setting[2]):
                found[section][setting[1]] = setting[2]
    lines = []
    for name, settings in found.items():
        lines += [f"[{name}]", *(f"\t{key} = {value}" for key, value in settings.items())] if settings else []
    return "".join(f"{line}\n" for line in lines).encode()


def _is_repository(new: int) -> bool:
    kinds = [_kind(new, name) for name in ("HEAD", "objects", "refs")]
    return kinds == [stat.S_IFREG, stat.S_IFDIR, stat.S_IFDIR]


def _kind(folder: int, name: str) -> int:
    try:
        return stat.S_IFMT(os.lstat(name, dir_fd=folder).st_mode)
    except OSError:
        return 0


def _take_over(new: int, folder: int) -> None:
    config = os.open("config", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=folder)
    with os.fdopen(config, "wb") as file:
        file.write(format_settings(_read_config(new)))
    os.mkdir("hooks", dir_fd=folder)
    for names, kind in ((_FOLDERS, stat.S_IFDIR), (_FILES, stat.S_IFREG)):
        for name in names:
            if _kind(new, name) == kind:
                os.rename(name, name, src_dir_fd=new, dst_dir_fd=folder)
    os.chmod(folder, 0o755)  # noqa: S103 - the mode that git uses


def _read_config(new: int) -> bytes:
    try:
        handle = os.open("config", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=new)
    except OSError:
        return b""
    try:
        return os.read(handle, _MOST_CONFIG) if stat.S_ISREG(os.fstat(handle).st_mode) else b""
    finally:
        os.close(handle)
