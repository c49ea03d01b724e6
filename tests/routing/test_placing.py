"""Where a pod works that does a job, and what it may touch there."""

from __future__ import annotations

from pathlib import Path

from actors.routing.pool.placing import placed
from polypod import Job, PodManifest

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
