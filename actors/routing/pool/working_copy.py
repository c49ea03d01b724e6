"""``WorkingCopy``: a git worktree for one job, and the branch that keeps what was done in it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from actors.config.working_copies import mark_copy
from actors.routing.pool.git_diff import parse_changes, parse_submodules
from actors.runtime.children.environment import allowed_environment
from actors.runtime.children.launcher import Launcher
from actors.runtime.children.run_whole import run_whole
from actors.runtime.children.trees import remove_tree
from actors.runtime.in_thread import in_thread
from actors.runtime.user_folders import make_private
from protocol.errors import ChildError, WorkspaceError
from protocol.jobs import Changes

#: What git runs with: nobody is asked, nothing of a user's hooks runs, and no lock is taken just to look.
_ENV = {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
_SETTINGS = ("-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false", "-c", "gc.auto=0")
_AUTHOR = ("-c", "user.name=polypod", "-c", "user.email=polypod@localhost")
_BRANCHES = "polypod/"
#: Bytes of git's words that an error shows.
_SHOWN = 500
#: Seconds that git may take: a large repository has many files to write.
_PATIENCE = 300.0


class Git:
    """Runs git. What changes a repository's worktrees or branches is done one at a time for each."""

    def __init__(self, launcher: Callable[[], Launcher]) -> None:
        self._launcher = launcher
        self._locks: dict[Path, asyncio.Lock] = {}

    def lock(self, repository: Path) -> asyncio.Lock:
        """Held by who changes a repository."""
        return self._locks.setdefault(repository, asyncio.Lock())

    async def run(self, folder: Path, *words: str) -> bytes:
        """What git prints. Raises WorkspaceError."""
        command, env = ("git", *_SETTINGS, *words), {**allowed_environment(), **_ENV}
        try:
            ran = await run_whole(self._launcher(), command, cwd=folder, env=env, seconds=_PATIENCE)
        except ChildError as error:
            why = f"git cannot be run in {folder}: {error.message}"
            raise WorkspaceError(why, hint=error.hint) from error
        except TimeoutError as error:
            raise WorkspaceError(
                f"git {words[0]} in {folder} took longer than {_PATIENCE:g} seconds"
            ) from error
        if ran.code:
            raise WorkspaceError(f"git {words[0]} in {folder} failed: {ran.last_words[:_SHOWN]}")
        return ran.stdout

    async def ask(self, folder: Path, *words: str) -> str:
        """The one line that git prints. Raises WorkspaceError."""
        return (await self.run(folder, *words)).decode("utf-8", "surrogateescape").rstrip("\n")


class WorkingCopy(Struct, frozen=True, eq=False):
    """A worktree that was made for a job. ``cwd`` is the folder in it that stands for the job's."""

    git: Git
    repository: Path
    folder: Path
    cwd: Path
    base: str
    branch: str

    @classmethod
    async def make(cls, git: Git, cwd: Path, worktrees: Path, name: str) -> WorkingCopy:
        """A working copy of the repository of ``cwd`` at its last commit; ``name`` is the name of its branch,
        which no other job has. What an interrupted attempt has left is thrown away. Raises WorkspaceError.
        """
        cwd = cwd.resolve()  # noqa: ASYNC240 - takes microseconds
        try:
            repository = Path(await git.ask(cwd, "rev-parse", "--show-toplevel"))
            base = await git.ask(cwd, "rev-parse", "--verify", "HEAD^{commit}")
        except WorkspaceError as error:
            raise WorkspaceError(
                f"{cwd} is not a git repository with a commit, so no working copy of it can be created",
                hint='commit something first, or use workspace="shared"',
            ) from error
        folder = worktrees / name
        copy = cls(git, repository, folder, folder / cwd.relative_to(repository), base, _BRANCHES + name)
        async with git.lock(repository):
            await copy._clear()
            make_private(worktrees)
            await git.run(repository, "worktree", "add", "--quiet", "-B", copy.branch, str(folder), base)
            try:
                mark_copy(folder, repository)
            except OSError as error:
                await copy._clear()
                raise WorkspaceError(f"{folder} cannot be set up: {error.strerror}") from error
        if not copy.cwd.is_dir():
            await copy.discard()
            raise WorkspaceError(f"{cwd} is not in the last commit of {repository}", hint="commit it first")
        return copy

    @classmethod
    async def find(cls, git: Git, folder: Path) -> WorkingCopy:
        """The working copy that a process has left in a folder. Raises WorkspaceError."""
        repository = Path(await git.ask(folder, "rev-parse", "--git-common-dir"))
        base = await git.ask(folder, "merge-base", "HEAD", await git.ask(repository, "rev-parse", "HEAD"))
        return cls(git, repository, folder, folder, base, _BRANCHES + folder.name)

    async def finish(self, message: str) -> Changes:
        """Commit what was done to the branch, and remove the worktree; the branch too where nothing was.
        Raises WorkspaceError; the worktree is left then.
        """
        git = self.git
        await self._add_all()
        before = ""
        with contextlib.suppress(WorkspaceError):  # its program may have gone to a branch without a commit
            before = await git.ask(self.folder, "rev-parse", "--verify", "HEAD^{tree}")
        if await git.ask(self.folder, "write-tree") != before:
            words = message.replace("\0", "")  # which no argument can have
            await git.run(self.folder, *_AUTHOR, "commit", "--quiet", "--no-verify", "-m", words)
        commit = await git.ask(self.folder, "rev-parse", "HEAD")
        printed = await git.run(
            self.folder, "diff", "--raw", "--numstat", "--no-renames", "-z", self.base, commit
        )
        if commit == self.base:
            await self.discard()
            return Changes(self.base)
        async with git.lock(self.repository):
            # Its program may have gone to another branch, or to none.
            await git.run(self.repository, "update-ref", f"refs/heads/{self.branch}", commit)
            await self._remove_folder()
        return Changes(self.base, parse_changes(printed), self.branch, commit)

    async def _add_all(self) -> None:
        """Put into the index what was done. No command of git enters a submodule for that, whose settings are
        whatever the job's program wrote there, and may have git run something.
        """
        git = self.git
        found = parse_submodules(await git.run(self.folder, "ls-files", "--stage", "-z"))
        others = [f":(exclude,top,literal){path}" for path in found]
        await git.run(self.folder, "add", "--all", "--", ":(top)", *others)
        if found:
            await git.run(self.folder, "update-index", "--remove", "--", *found)

    async def discard(self) -> None:
        """Remove the worktree and its branch. Raises WorkspaceError."""
        async with self.git.lock(self.repository):
            await self._clear()

    async def _clear(self) -> None:
        await self._remove_folder()
        with contextlib.suppress(WorkspaceError):  # there is none
            await self.git.run(self.repository, "branch", "--quiet", "-D", self.branch)

    async def _remove_folder(self) -> None:
        with contextlib.suppress(WorkspaceError):  # there is none, or git does not know it any more
            await self.git.run(self.repository, "worktree", "remove", "--force", "--force", str(self.folder))
        if self.folder.exists():
            await in_thread(remove_tree, self.folder)
            await self.git.run(self.repository, "worktree", "prune")
