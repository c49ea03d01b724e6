"""From the options of a command to the pod that it asks for: a new one, or one whose session goes on."""

from __future__ import annotations

from pathlib import Path

import click
from msgspec.structs import replace

from actors.cli.follow import Plan
from actors.cli.mcp_servers import with_servers, without_servers
from actors.cli.places import default_store
from actors.cli.pods.instructions import files_note, project_instructions
from actors.cli.pods.manifest import Wishes, allowing, manifest_for, with_model
from actors.cli.pods.options import Given
from actors.cli.sessions.store_reader import Reading
from actors.cli.user_tools import with_tools, with_tools_again
from actors.config.configuration import Configuration
from actors.sessions.store import SessionInfo
from protocol.errors import SessionNotFound
from protocol.manifest import PodManifest
from protocol.text import encodable

#: What stands between the words of a system prompt and the instructions of a project.
_INSTRUCTIONS = "# Instructions of this project\n\n"


def new_plan(given: Given) -> tuple[Plan, list[str]]:
    """A new pod as the options say, and what a person should know of it, a line each. Raises PolypodError."""
    if given.no_tools:
        raise click.UsageError(
            "--no-tools is only for continuing a session: a new pod has only the tools of --tools"
        )
    wishes = Wishes(given.manifest, given.name, given.model, given.base_url, given.allow, given.profile)
    asked, notes = manifest_for(wishes)
    whose = "profile" if given.profile else "manifest" if given.manifest else None
    if whose and given.model and "model" not in given.typed:  # who exported it has long forgotten
        notes.append(f"model: {given.model}, from $POLYPOD_MODEL, which overrides the {whose}")
    if given.system is not None:
        asked = asked.replace(pod=replace(asked.pod, system_prompt=encodable(given.system)))
    if given.manifest is None and not given.no_instructions:
        asked, of_project = with_instructions(asked)
        notes += of_project
    asked, of_tools = with_tools(asked, given.tools)
    asked, of_servers = with_servers(_limited(asked, given), given.mcp_files)
    return Plan(asked, given.store or default_store()), [*notes, *of_tools, *of_servers]


def with_instructions(manifest: PodManifest) -> tuple[PodManifest, list[str]]:
    """``manifest`` with the instructions of the project that its folder is in, and lines that name them."""
    pwd = Path(manifest.pod.pwd)
    found = project_instructions(pwd)
    if found is None:
        return manifest, []
    if not found.files:
        return manifest, list(found.notes)
    words = "\n\n".join(filter(None, (manifest.pod.system_prompt, _INSTRUCTIONS + found.text)))
    named = manifest.replace(pod=replace(manifest.pod, system_prompt=words))
    return named, [files_note(found, pwd), *found.notes]


def plan_again(given: Given, session: str | None) -> tuple[Plan, list[str]]:
    """The pod of a session (None: the last one of this folder) with what the options say otherwise, and what
    a person should know of it. Raises PolypodError.
    """
    for name in ("manifest", "name", "system"):
        if getattr(given, name) is not None:
            raise click.UsageError(
                f"--{name} is only for new sessions: a session keeps the settings that it began with"
            )
    if "profile" in given.typed:
        raise click.UsageError(
            "--profile is only for new sessions: a session keeps the settings that it began with"
        )
    # What is exported is for new pods.
    model, base_url = (
        getattr(given, name) if name in given.typed else None for name in ("model", "base_url")
    )
    with Reading(given.store) as reading:
        info = last_here(reading) if session is None else reading.find(session)
        asked = with_model(reading.manifest(info.session_id), Wishes(model=model, base_url=base_url))
        url = reading.url
    asked = _limited(allowing(asked, given.allow), given)
    asked, of_rules = Configuration.load().with_approvals(asked)
    asked, notes = with_tools_again(asked, given.tools, without=given.no_tools)
    asked, of_servers = with_servers(without_servers(asked) if given.no_tools else asked, given.mcp_files)
    return Plan(asked, url, info.session_id), [*of_rules, *notes, *of_servers]


def last_here(reading: Reading) -> SessionInfo:
    """The session that changed last of those whose pods work in this folder. Raises SessionNotFound."""
    pwd = str(Path.cwd())
    found = reading.newest(lambda manifest: manifest.pod.pwd == pwd)
    if found is None:
        raise SessionNotFound(
            f"{reading.url} has no session of a pod that works in {pwd}",
            hint="list the sessions with polypod ps, and continue one with --resume ID",
        )
    return found


def _limited(manifest: PodManifest, given: Given) -> PodManifest:
    if given.max_steps is not None:
        manifest = manifest.replace(worker=replace(manifest.worker, max_steps=given.max_steps))
    if given.budget:
        limits = {each.kind: each.value for each in given.budget}
        manifest = manifest.replace(budget=replace(manifest.budget, **limits))
    return manifest
