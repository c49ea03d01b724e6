"""Commands are confined to the scope of their pod, and then none of them is asked for."""

import os
import pwd
import subprocess
from pathlib import Path
from typing import Any

import pytest
from process_kit import marked
from shell_kit import Model, begin, manifest, marking, run, texts
from store_kit import without_privileges

from actors.llm.scripted import ScriptedClient, say
from actors.pod.handle import Pod
from actors.runtime.children.launcher import Launcher
from actors.system import PodSystem
from actors.tools.confinement import guarded_files
from actors.tools.confinement.sandbox import look_at_machine
from actors.tools.confinement.system_folders import system_folders
from protocol.events import Alert, ApprovalRequested, ToolResulted
from protocol.manifest import PodManifest
from protocol.scope import Scope


@pytest.fixture(autouse=True)
async def _needs_namespaces() -> None:
    launcher = Launcher()
    try:
        machine = await look_at_machine(launcher)
    finally:
        await launcher.aclose()
    if machine.why_not(needs_namespaces=True) is not None:
        pytest.skip(f"commands cannot be confined here: {machine.why_not(needs_namespaces=True)}")


def confined(folder: Path, **sections: Any) -> PodManifest:
    """A pod with a shell and no rule."""
    scope = Scope.writable(str(folder))
    return manifest(
        **{"approval": (), "sandbox": {}, "scope": scope, "pod": {"pwd": str(folder)}, **sections}
    )


async def said_to(*calls: Any, of: PodManifest, **options: Any) -> list[str]:
    """What a pod's model learns of its calls."""
    async with PodSystem(**options) as system:
        pod = await system.spawn(of, client=ScriptedClient([*calls, say("done")]))
        with pod.subscribe(ToolResulted) as events:
            await pod.run("go")
            return texts(events.drain())


async def test_a_confined_command_needs_no_word_and_touches_the_scope_alone(tmp_path: Path) -> None:
    inside, secret = tmp_path / "in", tmp_path / "secret"
    inside.mkdir()
    secret.write_text("secret")
    said = await said_to(
        run("echo made > made; cat made; pwd"),
        run(f"cat {secret}"),
        run(f"echo x > {tmp_path}/out"),
        run("touch $HOME/mine && echo $HOME && ls -A $HOME/.ssh"),
        of=confined(inside),
    )
    assert said[0] == f"made\n{inside}\n[exit code 0]"
    assert "secret" not in said[1].replace(str(secret), "")
    assert "[exit code 1]" in said[1]
    assert os.environ["HOME"] != said[3].split("\n")[0]
    assert (inside / "made").read_text() == "made\n"
    assert not (tmp_path / "out").exists()


async def test_commands_do_not_reach_the_store_of_their_own_system(tmp_path: Path) -> None:
    said = await said_to(
        run("cat pods.db* | head -c 20; echo x > polypod.toml; ls"),
        of=confined(tmp_path),
        store=f"sqlite:{tmp_path / 'pods.db'}",
    )
    assert "SQLite" not in said[0]
    assert not (tmp_path / "polypod.toml").is_file()


async def test_a_command_of_a_pod_without_a_scope_begins_in_its_home() -> None:
    (said,) = await said_to(run('[ "$PWD" = "$HOME" ] && echo home'), of=manifest(approval=(), sandbox={}))
    assert said == "home\n[exit code 0]"


async def test_with_the_sandbox_off_each_command_is_asked_for(tmp_path: Path) -> None:
    async with PodSystem() as system:
        of = confined(tmp_path, sandbox={"mode": "off"})
        pod = await system.spawn(of, client=ScriptedClient([run("echo hi"), say("done")]))
        with pod.subscribe([ApprovalRequested, ToolResulted, Alert]) as events:
            running = pod.run("go")
            asked = await anext(events)
            assert isinstance(asked, ApprovalRequested)
            await pod.approve(asked.approval_id)
            await running
            assert texts(events.drain()) == ["hi\n[exit code 0]"]


async def test_a_call_that_is_denied_since_it_cannot_be_confined_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        (tmp_path / str(number)).mkdir()
    monkeypatch.setattr(guarded_files, "MOST_FOLDERS", 2)
    (said,) = await said_to(run("echo hi"), of=confined(tmp_path))
    assert "folders to search for secret files" in said
    assert "nobody is there to give it" in said


async def test_a_pod_whose_commands_could_not_be_confined_for_a_moment_asks_no_more_once_they_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, rooms = tmp_path / "in", tmp_path / "rooms"
    inside.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(rooms))  # where no home can be made yet
    async with PodSystem() as system:
        client = ScriptedClient([run("echo hi"), run("echo hi"), say("a"), run("echo hi"), say("b")])
        pod = await system.spawn(confined(inside), client=client)
        with pod.subscribe([ToolResulted, Alert]) as events:
            await pod.run("go")
            rooms.mkdir()
            await pod.run("go on")
            shown = events.drain()
    said = texts(shown)
    assert all("no home folder can be created for them" in each for each in said[:2])
    assert said[2] == "hi\n[exit code 0]"
    assert len([each for each in shown if isinstance(each, Alert)]) == 1


@pytest.mark.parametrize("pwd", ["itself", "elsewhere"])
async def test_a_scope_whose_folder_is_gone_is_said_and_nothing_is_run(tmp_path: Path, pwd: str) -> None:
    folder, beside = tmp_path / "scope", tmp_path / "beside"
    of = confined(folder, pod={"pwd": str(folder if pwd == "itself" else beside)})
    folder.mkdir()
    beside.mkdir()
    async with PodSystem() as system:
        pod = await system.spawn(of, client=ScriptedClient([run("echo hi"), run("echo hi"), say("done")]))
        folder.rmdir()
        with pod.subscribe(ToolResulted) as events:
            await pod.run("go")
            for said in texts(events.drain()):
                assert "the command was not run" in said
                assert "no longer exists" in said or "its working folder: No such file" in said


async def test_what_a_rule_asks_for_is_asked_for_though_it_is_confined(tmp_path: Path) -> None:
    rules = [{"tool": "shell", "policy": "deny", "match": {"command": "git push*"}}]
    said = await said_to(run("echo hi"), run("true && git push"), of=confined(tmp_path, approval=rules))
    assert said[0] == "hi\n[exit code 0]"
    assert "it is denied" in said[1]


async def test_the_home_of_commands_is_gone_with_their_pod(tmp_path: Path, mark: str) -> None:
    async with PodSystem() as system:
        model = Model(begin(marking(mark, "echo up; sleep 1000")), say("a"))
        pod = await system.spawn(confined(tmp_path), client=model)
        await pod.run("go")
        home = home_of(pod)
        assert home.is_dir()
        await pod.stop()
        assert not home.exists()
    assert not marked(mark)


async def test_commands_find_a_place_though_the_system_has_a_single_one(tmp_path: Path) -> None:
    said = await said_to(run("echo hi"), of=confined(tmp_path), processes=1)
    assert said == ["hi\n[exit code 0]"]


def home_of(pod: Pod) -> Path:
    """The home of a pod's commands."""
    return Path(pod.ref.actor.resources.commands._sandbox._home.path)  # type: ignore[attr-defined]


def make_repository(folder: Path) -> None:
    commit = "git add f && git -c user.name=n -c user.email=a@b commit -qm one"
    script = f"git init -q {folder} && cd {folder} && echo hello > f && {commit}"
    subprocess.run(["sh", "-c", script], check=True)


async def test_who_cannot_remove_what_is_hidden_learns_why(tmp_path: Path) -> None:
    packages = tmp_path / "in/node_modules"
    packages.mkdir(parents=True)
    (packages / "test.pem").write_text("k")
    said = await said_to(run("rm -rf node_modules; ls -A node_modules"), of=confined(tmp_path / "in"))
    assert "hidden from commands" in said[0]
    assert (packages / "test.pem").read_text() == "k"


async def test_who_clones_into_the_top_of_the_scope_learns_how_that_is_done(tmp_path: Path) -> None:
    inside, origin = tmp_path / "in", tmp_path / "origin"
    inside.mkdir()
    make_repository(origin)
    readable = Scope.readable(str(origin)).allow
    scope = Scope(Scope.writable(str(inside)).allow + readable)
    said = await said_to(
        run(f"git clone {origin} ."),
        run(f"git init -q && git pull -q {origin}; cat f; git log --format=%s"),
        run(f"git clone -q {origin} below && cat below/f"),
        of=confined(inside, scope=scope),
    )
    assert "use `git init && git pull URL` there instead" in said[0]
    assert said[1:] == ["hello\none\n[exit code 0]", "hello\n[exit code 0]"]
    assert (inside / ".git" / "HEAD").exists()


def test_a_path_with_folders_that_are_closed_to_the_user_and_no_home_hinder_no_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, unlisted, closed = (tmp_path / name / "bin" for name in ("listed", "unlisted", "closed"))
    for folder in (listed, unlisted, closed):
        folder.mkdir(parents=True)
    unlisted.chmod(0o311)
    closed.parent.chmod(0)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    try:
        with without_privileges(tmp_path):
            found = system_folders(os.pathsep.join(map(str, (closed, unlisted, listed))))
    finally:
        closed.parent.chmod(0o700)
        unlisted.chmod(0o700)
    assert {str(listed.parent), str(unlisted.parent)} <= {*found.readable}
    assert not any(each.startswith(str(closed.parent)) for each in found.readable)
