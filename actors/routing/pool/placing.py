"""``placed``: a pod's manifest for one job: its working directory and scope in the folder of the job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from actors.config.working_copies import history_of
from actors.runtime.arguments import path_of
from actors.tools.scope import resolved
from protocol.jobs import Job
from protocol.manifest import PodManifest
from protocol.scope import Rule, Scope


def placed(manifest: PodManifest, job: Job, cwd: Path) -> PodManifest:
    """The manifest of a pod that does ``job`` in ``cwd``: in the folder that the job names, else in that of
    the manifest, else in ``cwd``; its scope is moved there. In a working copy it reads what git keeps of the
    repository besides, where it could in the folder itself: git finds no history otherwise.
    """
    if job.workspace == "shared":
        return _moved(manifest, cwd) if job.cwd is not None or not manifest.pod.pwd else manifest
    there = manifest if job.cwd is None else _moved(manifest, path_of("cwd", job.cwd).absolute())
    copied, kept = _moved(there, cwd), history_of(cwd)
    if kept is None or not _permits_all(there.scope, kept):
        return copied
    scope = copied.scope
    return replace(copied, scope=Scope((*scope.allow, Rule(str(kept))), scope.deny, scope.within))


def _permits_all(scope: Scope, folder: Path) -> bool:
    """Whether ``folder`` and what is below it at any depth may be read, but for what is denied by itself."""
    real = resolved(scope)
    of_all = tuple(
        rule for rule in real.allow if rule.recursive
    )  # what another permits ends directly below its folder
    return Scope(of_all, real.deny, real.within).permits(folder, "read")


def _moved(manifest: PodManifest, to: Path) -> PodManifest:
    was = manifest.pod.pwd
    moved = replace(manifest, pod=replace(manifest.pod, pwd=str(to)))
    if not was:
        return moved

    def rules_of(rules: Any) -> Any:
        return type(rules)(replace(rule, target=_target(rule.target, Path(was), to)) for rule in rules)

    allow, deny = manifest.scope.allow, manifest.scope.deny
    # What was denied stays so: a rule for a folder above both allows it still.
    denied = tuple(dict.fromkeys((*deny, *rules_of(deny))))
    return replace(moved, scope=replace(manifest.scope, allow=rules_of(allow), deny=denied))


def _target(target: str, was: Path, to: Path) -> str:
    path = Path(target)
    return str(to / path.relative_to(was)) if path.is_relative_to(was) else target
