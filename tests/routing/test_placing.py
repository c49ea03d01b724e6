"""Where a pod works that does a job, and what it may touch there."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.routing.pool.placing import placed
from polypod import Job, PodManifest, Rule, Scope

MANIFEST = PodManifest.of(
    pwd="/srv/a",
    scope={
        "allow": [{"target": "/srv/a", "permission": "write"}, {"target": "/srv", "permission": "read"}],
        "deny": [{"target": "/srv/a/secret"}],
    },
)


def test_the_scope_moves_with_the_folder_and_what_was_denied_stays_so():
    moved = placed(MANIFEST, Job("n", "i", cwd="/srv/b"), Path("/srv/b"))
    assert moved.pod.pwd == "/srv/b"
    assert moved.scope.permits(Path("/srv/b/x"), "write")
    assert not moved.scope.permits(Path("/srv/a/x"), "write")
    assert not moved.scope.permits(Path("/srv/b/secret"), "read")
    assert not moved.scope.permits(Path("/srv/a/secret"), "read")


def test_a_job_that_names_no_folder_is_done_where_the_manifest_says_or_else_where_the_pool_is():
    assert placed(MANIFEST, Job("n", "i"), Path("/srv/b")) == MANIFEST
    assert placed(PodManifest(), Job("n", "i"), Path("/srv/b")).pod.pwd == "/srv/b"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a worktree ``copy`` beside it, as git lays them out."""
    repository, copy = tmp_path / "repository", tmp_path / "copy"
    kept = repository / ".git/worktrees/copy"
    kept.mkdir(parents=True)
    copy.mkdir()
    (kept / "commondir").write_text("../..\n")
    (kept / "gitdir").write_text(f"{copy}/.git\n")
    (copy / ".git").write_text(f"gitdir: {kept}\n")
    return repository


def in_copy(folder: Path, scope: Scope) -> Scope:
    """What a pod may touch that does a job for ``folder`` in the working copy."""
    manifest = PodManifest.of(pwd=str(folder), scope=scope)
    job = Job("n", "i", cwd=str(folder), workspace="worktree")
    return placed(manifest, job, folder.parent / "copy").scope


def test_in_a_working_copy_no_more_of_the_repository_may_be_read_than_in_the_folder(repository: Path):
    shallow = in_copy(repository, Scope((Rule(str(repository), "read", recursive=False),)))
    assert not shallow.permits(repository / ".git/config", "read")
    named = Rule(str(repository / ".git/objects/pack"))
    some = in_copy(repository, Scope((Rule(str(repository), "read", recursive=False), named)))
    assert not some.permits(repository / ".git/config", "read")
    denied = Scope((Rule(str(repository)),), (Rule(str(repository / ".git/config")),))
    most = in_copy(repository, denied)
    assert most.permits(repository / ".git/objects/pack", "read")
    assert not most.permits(repository / ".git/config", "read")


def test_a_job_folder_that_is_a_symlink_has_the_history_in_its_working_copy(repository: Path):
    link = repository.parent / "link"
    link.symlink_to(repository)
    assert in_copy(link, Scope.readable(link)).permits(repository / ".git/objects/pack", "read")
