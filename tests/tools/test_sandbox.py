"""A pod's scope becomes a confinement of the same meaning."""

import ast
import asyncio
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path, PurePath

import pytest
from confined_kit import Place, Runner
from effort import times
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_kit import without_privileges

from actors.runtime.children.confinement.confinement import Confinement
from actors.runtime.children.launcher import Launcher
from actors.runtime.user_folders import configuration_path, state_path
from actors.sessions.answer_token import answer_token
from actors.sessions.chain import chained
from actors.sessions.jsonl.store import JsonLinesStore
from actors.sessions.sqlite.store import SQLiteStore
from actors.tools.confinement.program_homes import PREFIX
from actors.tools.confinement.sandbox import Sandbox, look_at_machine
from actors.tools.scope import fence, fenced, resolved
from protocol.errors import ChildNotConfined, ManifestError
from protocol.manifest import PodManifest, SandboxSection
from protocol.scope import Permission, Rule, Scope

TOKEN = "the-token-that-is-in-no-scope"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux confines")
Confined = Callable[..., "asyncio.Future[str]"]


@pytest.fixture
async def launcher() -> AsyncIterator[Launcher]:
    launcher = Launcher()
    machine = await look_at_machine(launcher)
    if machine.why_not(needs_namespaces=True) is not None:
        await launcher.aclose()
        pytest.skip(f"this machine cannot confine: {machine}")
    yield launcher
    await launcher.aclose()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = Path(os.path.realpath(tmp_path))
    (place / "scope").mkdir()
    (place / "outside").mkdir()
    (place / "outside/secret").write_text(TOKEN)
    return place


def init(folder: Path, *options: str) -> None:
    subprocess.run(["git", "init", "-q", *options, folder], check=True)


def git(folder: Path, words: str) -> None:
    """Have the user's own git do something there."""
    who = ["-c", "user.name=n", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", folder, *who, *words.split()], check=True, stdout=subprocess.DEVNULL)


async def sh(
    launcher: Launcher, scope: Scope, cwd: Path, script: str, section: SandboxSection | None = None
) -> str:
    sandbox = Sandbox(section or SandboxSection(mode="require"), lambda: resolved(scope), lambda: launcher)
    try:
        return await run(launcher, await sandbox.confine(), cwd, script)
    finally:
        sandbox.close()


async def run(launcher: Launcher, confinement: Confinement | None, cwd: Path, script: str) -> str:
    env = {"PATH": os.environ["PATH"]}
    child = await launcher.start(
        ["sh", "-c", script], cwd=cwd, env=env, stderr="stdout", confinement=confinement
    )
    assert child.stdout is not None
    text = b""
    while data := await child.stdout.read():
        text += data
    await child.wait()
    return text.decode(errors="replace")


async def test_a_program_reads_and_writes_its_scope_and_nothing_else(launcher: Launcher, place: Path) -> None:
    script = f"cat {place}/outside/secret ../outside/secret; touch ../new; echo one > a; cat a; echo $HOME"
    text = await sh(launcher, Scope.writable(place / "scope"), place / "scope", script)
    assert TOKEN not in text
    assert (place / "scope/a").read_text() == "one\n"
    assert not (place / "new").exists()
    assert str(Path.home()) not in text.split()


async def test_a_scope_may_be_in_shared_memory_of_which_nothing_else_is_seen(launcher: Launcher) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as around:
        Path(around, "secret").write_text(TOKEN)
        folder = Path(around, "scope")
        folder.mkdir()
        script = f"ls /dev/shm {around}; cat {around}/secret; cat {around}/own; echo new > made; echo own > ../own; cat ../own"
        reported = await sh(launcher, Scope.writable(folder), folder, script)
        assert (folder / "made").read_text() == "new\n"
        assert not Path(around, "own").exists()
    assert TOKEN not in reported
    assert reported.startswith(f"/dev/shm:\n{Path(around).name}\n\n{around}:\nscope\n")
    assert reported.endswith("\nown\n")


async def test_secret_files_are_hidden_unless_they_are_named(launcher: Launcher, place: Path) -> None:
    folder = place / "scope"
    (folder / "sub/.ssh").mkdir(parents=True)
    for name in (".env", "sub/key.pem", "sub/.ssh/id_ed25519", "polypod.toml"):
        (folder / name).write_text(TOKEN)
    script = (
        "cat .env sub/key.pem sub/.ssh/* polypod.toml; grep -r . .; cp -r . /tmp/copy; cat /tmp/copy/.env"
    )
    assert TOKEN not in await sh(launcher, Scope.writable(folder), folder, script)
    named = Scope((Rule(str(folder), "write"), Rule(str(folder / ".env"), "read")))
    assert TOKEN in await sh(launcher, named, folder, "cat .env")
    assert TOKEN not in await sh(launcher, named, folder, "cat sub/key.pem polypod.toml")


def test_a_folder_that_a_program_closes_is_not_open_to_the_next(tmp_path: Path) -> None:
    place = Place(Path(os.path.realpath(tmp_path)))
    (place.scope / "sub").mkdir()
    (place.scope / "sub/.env").write_text(TOKEN)
    runner = Runner(place, "without privileges")
    sandbox = Sandbox(SandboxSection(), lambda: Scope.writable(place.scope), lambda: runner.launcher)
    try:
        confine = sandbox.confine
        runner.call(run(runner.launcher, runner.call(confine()), place.scope, "chmod 0 sub"))
        script = "chmod 700 sub; cat sub/.env; mv sub moved; cat moved/.env"
        assert TOKEN not in runner.call(run(runner.launcher, runner.call(confine()), place.scope, script))
        (place.scope / "sub").chmod(0o700)
    finally:
        sandbox.close()
        runner.close()


async def test_symlinks_of_guarded_names_keep_no_program_from_running(
    launcher: Launcher, place: Path
) -> None:
    folder = place / "scope"
    init(folder / "real")
    for name, target in {
        ".env": "open",
        ".git": "real/.git",
        "polypod.toml": "none",
        "sub/.git": "/",
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(target)
    (folder / "open").write_text("content")
    script = (
        "git status -s --untracked=no && cat open; rm -f .env .git polypod.toml sub/.git; ln -s / later.key"
    )
    for _ in range(2):  # the second time with what the first has made
        assert "content" in await sh(launcher, Scope.writable(folder), folder, script)
        assert (folder / ".git").readlink() == Path("real/.git")
        assert (folder / "polypod.toml").is_symlink()


async def test_a_rule_for_what_is_directly_in_a_folder_that_may_not_be_listed_hinders_no_command(
    launcher: Launcher, place: Path
) -> None:
    folder, closed = place / "scope", place / "closed"
    closed.mkdir()
    closed.chmod(0o311)
    scopes = [Scope.writable(folder)]
    sandbox = Sandbox(SandboxSection(mode="require"), lambda: scopes[-1], lambda: launcher)
    await sandbox.confine()  # which makes its home
    scopes.append(Scope((*scopes[0].allow, Rule(str(closed), "read", recursive=False))))
    with without_privileges(place):
        confinement = await sandbox.confine()
    sandbox.close()
    closed.chmod(0o700)
    assert confinement is not None
    assert confinement.writable == (str(folder),)
    assert str(closed) not in confinement.readable


async def test_what_is_new_among_the_secrets_is_hidden_from_the_next_program(
    launcher: Launcher, place: Path
) -> None:
    folder = place / "scope"
    (folder / "sub").mkdir()
    sandbox = Sandbox(SandboxSection(), lambda: Scope.writable(folder), lambda: launcher)
    await run(launcher, await sandbox.confine(), folder, "true")
    for name in ("sub/.env", "sub/deploy.key"):
        (folder / name).write_text(TOKEN)
        assert TOKEN not in await run(launcher, await sandbox.confine(), folder, f"cat {name}")
    sandbox.close()


async def test_what_is_secret_by_its_folder_stays_so_though_the_folder_is_renamed(
    launcher: Launcher, place: Path
) -> None:
    folder = place / "scope"
    for name in ("sub/.docker/config.json", ".config/gh/hosts.yml"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(TOKEN)
    scope = Scope.writable(folder)
    await sh(launcher, scope, folder, "mv sub/.docker sub/open; mv .config open")
    assert TOKEN not in await sh(launcher, scope, folder, "cat sub/open/* open/gh/*; grep -r . .")


async def test_the_homes_of_others_are_in_no_scope(
    launcher: Launcher, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = place / "scope"
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    one, other = (
        Sandbox(SandboxSection(), lambda: Scope.writable(folder), lambda: launcher) for _ in range(2)
    )
    script = f"echo {TOKEN} > ~/mine; echo {TOKEN} > /tmp/mine; cat ~/mine"
    assert TOKEN in await run(launcher, await one.confine(), folder, script)
    assert TOKEN not in await run(
        launcher, await other.confine(), folder, "find . ~ /tmp -maxdepth 4 -name mine -exec cat {} +"
    )
    one.close()
    other.close()


async def test_a_sandbox_has_one_home_and_none_once_it_is_closed(
    launcher: Launcher, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    sandbox = Sandbox(SandboxSection(), lambda: Scope.writable(place / "scope"), lambda: launcher)
    both = await asyncio.gather(sandbox.confine(), sandbox.confine())
    assert len({each.home for each in both if each is not None}) == 1
    assert len(list(place.glob(f"{PREFIX}*"))) == 1
    sandbox.close()
    late = Sandbox(SandboxSection(), lambda: Scope.writable(place / "scope"), lambda: launcher)
    confining = asyncio.ensure_future(late.confine())
    await asyncio.sleep(0)
    late.close()
    assert await confining is None
    assert not list(place.glob(f"{PREFIX}*"))


async def test_a_program_cannot_take_the_temporary_folder_from_the_next(
    launcher: Launcher, place: Path
) -> None:
    sandbox = Sandbox(SandboxSection(), lambda: Scope.writable(place / "scope"), lambda: launcher)
    await run(launcher, await sandbox.confine(), place, "rm -rf ~/* ; mv ~/tmp ~/x; ln -s / ~/tmp")
    text = await run(launcher, await sandbox.confine(), place / "scope", "mktemp; echo works")
    assert "works" in text
    sandbox.close()


async def test_git_works_and_its_hooks_and_config_are_not_written(launcher: Launcher, place: Path) -> None:
    folder = place / "scope"
    init(folder)
    script = """
    git config user.name x; git config core.fsmonitor evil; echo evil > .git/hooks/pre-commit; rm -rf .git/hooks
    mv .git moved; mkdir -p .git/hooks; echo evil > .git/config; echo .. > .git/commondir
    echo 1 > f; git add -A; git -c user.name=n -c user.email=a@b commit -qm one; git log --oneline
    """
    before = (folder / ".git/config").read_text()
    text = await sh(launcher, Scope.writable(folder), folder, script)
    assert "one" in text
    shown = await sh(
        launcher, Scope.writable(folder), folder, "git show --name-only --format=; git status -s"
    )
    assert shown == "f\n"
    assert (folder / ".git/config").read_text() == before
    assert not (folder / ".git/hooks/pre-commit").exists()
    assert not (folder / ".git/commondir").exists()
    assert not (folder / "moved").exists()


async def test_repositories_below_and_of_submodules_are_guarded_too(launcher: Launcher, place: Path) -> None:
    folder = place / "scope"
    init(folder / "vendor/one")
    module = folder / "vendor/one/.git/modules/deep/two"
    init(module, "--bare")
    script = """
    echo evil >> vendor/one/.git/config; echo evil >> vendor/one/.git/modules/deep/two/config
    echo evil > vendor/one/.git/modules/deep/two/hooks/pre-commit; mv vendor moved; mv vendor/one moved; rm -rf vendor
    mkdir -p vendor/one/.git; echo evil > vendor/one/.git/config
    """
    await sh(launcher, Scope.writable(folder), folder, script)
    assert "evil" not in (folder / "vendor/one/.git/config").read_text()
    assert "evil" not in (module / "config").read_text()
    assert not (module / "hooks/pre-commit").exists()


@pytest.mark.parametrize("is_read_already", [True, False])
async def test_settings_of_a_working_copy_are_not_planted_where_git_reads_them(
    launcher: Launcher, place: Path, is_read_already: bool
) -> None:
    folder, mark = place / "scope", place / "outside/mark"
    init(folder)
    git(folder, "commit -q --allow-empty -m x")
    git(folder, "worktree add -q tree")
    if is_read_already:
        git(folder, "config extensions.worktreeConfig true")
    own = [folder / ".git/config.worktree", folder / ".git/worktrees/tree/config.worktree"]
    planted = f"printf '[core]\\n\\tfsmonitor = touch {mark}\\n'"
    script = f"for each in {own[0]} {own[1]}; do {planted} > $each; done; git status > /dev/null && echo fine"
    assert (await sh(launcher, Scope.writable(folder), folder, script)).endswith("fine\n")
    assert not [each for each in own if each.exists()]
    git(folder, "config extensions.worktreeConfig true")  # as `git sparse-checkout` sets it
    git(folder, "status")
    git(folder / "tree", "status")
    assert not mark.exists()


async def test_a_repository_of_another_name_is_not_steered_by_a_program(
    launcher: Launcher, place: Path
) -> None:
    for folder in (place / "scope", place / "scope/sub/mirror"):
        init(folder, "--bare")
    script = """
    for each in . sub/mirror; do (cd $each; echo evil >> config; echo evil > hooks/pre-push; echo .. > commondir); done
    mv sub other; mv sub/mirror sub/m; git log; echo fine
    """
    text = await sh(launcher, Scope.writable(place / "scope"), place / "scope", script)
    assert text.endswith("fine\n")
    for folder in (place / "scope", place / "scope/sub/mirror"):
        assert "evil" not in (folder / "config").read_text()
        assert not (folder / "hooks/pre-push").exists()


async def test_no_repository_and_no_configuration_is_planted_in_the_scope(
    launcher: Launcher, place: Path
) -> None:
    folder = place / "scope"
    script = """
    git init -q; mkdir -p .git/hooks; echo evil > .git/config; echo evil > polypod.toml; touch fine
    git init -q --bare .; mkdir refs objects; echo 'ref: refs/heads/main' > HEAD; rm -r refs objects hooks
    """
    await sh(launcher, Scope.writable(folder), folder, script)
    assert not {"HEAD", "polypod.toml"} & {each.name for each in folder.iterdir()}
    assert "evil" not in (folder / ".git/config").read_text()
    assert (folder / "fine").exists()


async def test_a_program_makes_a_repository_which_the_next_may_not_steer(
    launcher: Launcher, place: Path
) -> None:
    folder = place / "scope"
    commit = "git -c user.name=n -c user.email=a@b commit --allow-empty -qm"
    assert await sh(launcher, Scope.writable(folder), folder, "ls -A; git status 2> /dev/null") == (
        ".git\npolypod.toml\n"
    )
    assert list(folder.iterdir()) == []
    await sh(launcher, Scope.writable(folder), folder, f"git init -q -b main && {commit} one")
    script = f"{commit} two; git log --format=%s; git config core.fsmonitor evil; touch .git/hooks/x; ls -A"
    text = await sh(launcher, Scope.writable(folder), folder, script)
    assert text.startswith("two\none\n")
    assert text.endswith(".git\npolypod.toml\n")
    assert "evil" not in (folder / ".git/config").read_text()
    assert list((folder / ".git/hooks").iterdir()) == []


async def test_what_goes_through_all_files_is_not_stopped_by_what_is_reserved(
    launcher: Launcher, place: Path
) -> None:
    folder = place / "scope"
    (folder / "file").write_text("needle")
    scope = Scope((Rule(str(folder), "write"),), (Rule(str(folder / "later"), "read"),))
    script = "grep -r needle . && find . | xargs ls -d > /dev/null && tar c . | wc -c && cp -r . /tmp/copy && echo all went"
    text = await sh(launcher, scope, folder, script)
    assert text.endswith("all went\n"), text
    assert [each.name for each in folder.iterdir()] == ["file"]


async def test_the_user_is_known_to_git_and_nothing_else_of_the_home(
    launcher: Launcher, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = place / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        '[user]\n\tname = "A \\"B\\" C"\n\temail = a@b\n[http]\n\textraHeader = ' + TOKEN
    )
    monkeypatch.setenv("HOME", str(home))
    folder = place / "scope"
    text = await sh(
        launcher, Scope.writable(folder), folder, "git config user.name; cat ~/.gitconfig; ls -a ~"
    )
    assert text.startswith('A "B" C\n')
    assert TOKEN not in text


async def test_of_the_system_root_reads_what_others_may(launcher: Launcher, place: Path) -> None:
    text = await sh(
        launcher, Scope.writable(place / "scope"), place / "scope", "cat /etc/shadow; cat /etc/passwd"
    )
    assert "root:x:" in text
    assert "root:!" not in text
    assert "root:*" not in text


async def test_ordinary_programs_run(launcher: Launcher, place: Path) -> None:
    folder = place / "scope"
    (folder / "Makefile").write_text("all:\n\techo made > out\n")
    (folder / "test_it.py").write_text("def test_it(tmp_path): (tmp_path / 'x').write_text('y')\n")
    (folder / "main.c").write_text('#include <stdio.h>\nint main(void) { puts("compiled"); return 0; }\n')
    # The plug-in of a checkout stands where the scope allows nothing.
    script = f"""
    set -e
    PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 {sys.executable} -m pytest -q -p no:cacheprovider test_it.py
    {sys.executable} -m venv --without-pip venv && venv/bin/python -c 'print("in a venv")'
    python3 -c 'import multiprocessing as m; print(m.Pool(2).map(len, ["ab", "c"]), m.Lock())'
    if command -v make; then make -s && cat out; fi
    if command -v gcc; then gcc -o main main.c && ./main; fi
    if command -v node; then node -e 'require("fs").writeFileSync("n", "1"); console.log("node", 1 + 1)'; fi
    mktemp -d; echo done
    """
    scope = Scope((Rule(str(folder), "write"), Rule(os.path.realpath(sys.prefix), "read")))
    text = await sh(launcher, scope, folder, script)
    assert text.endswith("done\n"), text


# -- rules -------------------------------------------------------------------------------------------


async def test_rules_hold_for_programs_as_they_do_for_tools(launcher: Launcher, place: Path) -> None:
    folder = place / "scope"
    for name in ("a/deep", "kept/deep", "gone/deep", "flat/deep"):
        (folder / name).mkdir(parents=True)
        (folder / name / "file").write_text(f"in {name}")
        (folder / Path(name).parent / "file").write_text(f"in {Path(name).parent}")

    def rules(*of: tuple[str, Permission]) -> tuple[Rule, ...]:
        return tuple(Rule(str(folder / name), kind, recursive=name != "flat") for name, kind in of)

    scope = Scope(
        allow=rules(("a", "write"), ("flat", "read"), ("kept", "write"), ("gone", "write")),
        deny=rules(("kept", "write"), ("gone/deep", "read"), ("gone/later", "read")),
        within=Scope.writable(folder),
    )
    names = ("a", "a/deep", "kept", "kept/deep", "gone", "gone/deep", "gone/later", "flat", "flat/deep", ".")
    script = "\n".join(
        f"grep -q in {name}/file && echo read {name}; echo x >> {name}/file; mkdir {name}/x" for name in names
    )
    lines = (await sh(launcher, scope, place / "scope/a", f"cd ..\n{script}")).splitlines()
    for name in names:
        file = folder / name / "file"
        if file.exists():
            assert (f"read {name}" in lines) == scope.permits(file, "read"), lines
            assert file.read_text().endswith("x\n") == scope.permits(file, "write"), lines
        assert (folder / name / "x").exists() == scope.permits(folder / name / "x", "write")


@pytest.mark.parametrize("name", ["-", "*", "**"])
async def test_a_rule_for_a_folder_of_any_name_opens_nothing_below_others(
    launcher: Launcher, place: Path, name: str
) -> None:
    folder = place / "scope"
    (folder / "deep").mkdir()
    (folder / "deep/secret").write_text(TOKEN)
    rules = (Rule(str(folder), "read", recursive=False), Rule(str(folder / name), "read", recursive=False))
    said = await sh(launcher, Scope(rules), Path("/"), f"cat {folder}/deep/secret; echo done")
    assert said.endswith("done\n")
    assert TOKEN not in said


NAMES = st.sampled_from(
    ["a", "b", ".env", "sub", "A", "sub.", "ü", "u\u0308", "x" * 120, " ", "-", "a\nb", "*"]
)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(tuple)
RULES = st.tuples(PATHS, st.sampled_from(["read", "write"]), st.booleans())
READ = """
import sys
for path in sys.argv[1:]:
    try: open(path).read() == "content" and print(ascii(path))
    except OSError: pass
    for name, mode in ((path, "a"), (path + ".new", "x")):
        try: open(name, mode).write("!")
        except OSError: pass
"""


@pytest.mark.slow
async def test_no_path_is_open_to_a_program_that_the_scope_keeps_from_tools(
    launcher: Launcher, place: Path
) -> None:
    loop = asyncio.get_running_loop()
    numbers = itertools.count()

    @settings(max_examples=times(30), deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        files=st.lists(PATHS, min_size=1, max_size=6, unique=True),
        allow=st.lists(RULES, min_size=1, max_size=3),
        deny=st.lists(RULES, max_size=3),
        within=st.none() | st.lists(RULES, min_size=1, max_size=2),
    )
    def check(files: list, allow: list, deny: list, within: list | None) -> None:
        root = place / str(next(numbers))
        made = [root]
        root.mkdir()
        for parts in files:
            path = root.joinpath(*parts)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("content")
            except OSError:
                continue  # one of the others is in its place
            made.append(path)

        def rules(of: list) -> tuple[Rule, ...]:
            return tuple(Rule(str(root.joinpath(*parts)), kind, recursive) for parts, kind, recursive in of)

        bound = None if within is None else Scope((*rules(within), Rule(str(root / "sub"), "write")))
        scope = resolved(Scope(rules(allow), rules(deny), bound))
        text = asyncio.run_coroutine_threadsafe(programs(scope, [str(each) for each in made]), loop).result()
        for line in text.splitlines():
            assert scope.permits(PurePath(ast.literal_eval(line)), "read"), (line, scope)
        for path in root.rglob("*"):
            if path.is_file() and path.read_text() != "content":
                # A new name that is secret is the program's own.
                named = path if path in made else path.parent / "new"
                assert scope.permits(named, "write"), (path, scope)

    async def programs(scope: Scope, paths: list[str]) -> str:
        sandbox = Sandbox(SandboxSection(mode="require"), lambda: scope, lambda: launcher)
        confinement = await sandbox.confine()
        child = await launcher.start(
            ["python3", "-I", "-S", "-c", READ, *paths],
            cwd="/",
            env={"PATH": os.environ["PATH"]},
            stderr="null",
            confinement=confinement,
        )
        assert child.stdout is not None
        text = b""
        while data := await child.stdout.read():
            text += data
        await child.wait()
        sandbox.close()
        return text.decode()

    await asyncio.to_thread(check)


# -- modes -------------------------------------------------------------------------------------------


async def test_where_it_cannot_be_confined_require_refuses_and_scope_asks(place: Path) -> None:
    launcher = Launcher()
    await launcher.aclose()  # nothing can be confined where nothing can be started
    scope = Scope.writable(place / "scope")
    asking = Sandbox(SandboxSection(), lambda: scope, lambda: launcher)
    assert "closed" in str(await asking.why_not())
    assert await asking.confine() is None
    refusing = Sandbox(SandboxSection(mode="require"), lambda: scope, lambda: launcher)
    with pytest.raises(ChildNotConfined):
        await refusing.why_not()
    with pytest.raises(ChildNotConfined):
        await refusing.confine()
    off = Sandbox(SandboxSection(mode="off"), lambda: scope, lambda: launcher)
    reason = await off.why_not()
    assert reason is not None
    assert (reason.message, reason.hint) == (
        '[sandbox] mode = "off", so commands are not confined',
        'set [sandbox] mode = "scope"',
    )
    assert await off.confine() is None


async def test_the_home_of_programs_is_removed(launcher: Launcher, place: Path) -> None:
    sandbox = Sandbox(SandboxSection(), lambda: Scope.writable(place / "scope"), lambda: launcher)
    assert await sandbox.why_not() is None
    confinement = await sandbox.confine()
    assert confinement is not None
    await run(launcher, confinement, place / "scope", "echo kept > /tmp/x; echo kept > ~/y")
    assert await run(launcher, await sandbox.confine(), place / "scope", "cat /tmp/x ~/y") == "kept\nkept\n"
    sandbox.close()
    assert not Path(confinement.home).exists()


def test_a_manifest_says_how_programs_are_confined() -> None:
    text = '[sandbox]\nmode = "require"\nnetwork = true\nmemory_bytes = 1_000_000\nprocesses = 64\n'
    manifest = PodManifest.from_toml(text)
    assert manifest.sandbox == SandboxSection("require", network=True, memory_bytes=1_000_000, processes=64)
    assert PodManifest.of(sandbox=SandboxSection("off")).sandbox.mode == "off"
    assert PodManifest().sandbox == SandboxSection("scope", network=False)
    for wrong in ('mode = "maybe"', "memory_bytes = 0", "cpu_seconds = -1", "net = true"):
        with pytest.raises(ManifestError, match="sandbox"):
            PodManifest.from_toml(f"[sandbox]\n{wrong}\n")


async def test_no_program_reaches_what_steers_polypod_whatever_the_scope_says(
    launcher: Launcher, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, str(place / variable))
    answer_token()
    configuration_path().mkdir(parents=True)
    (configuration_path() / "mine").write_text("secret")
    store = SQLiteStore(place / "pods.db")
    store.create("s", "p", None, chained([b"secret"]))
    lines = JsonLinesStore(place / "lines")
    lines.create("s", "p", None, chained([b"secret"]))
    rules = fence([state_path(), configuration_path(), *store.files, *lines.files])
    scope = Scope((Rule(str(place), "write"), Rule(str(place / "pods.db"), "write")))
    tried = [str(state_path() / "approval-token"), str(configuration_path() / "mine"), "lines/s.jsonl"]
    # Not pods.db-journal, which SQLite could not make then; a store that is opened puts a strange one aside.
    tried += ["pods.db", "pods.db-wal", "pods.db-shm", "pods.db.writers/log"]
    tried += ["lines/.polypod/answers.jsonl", "polypod.toml"]

    def there() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}

    before = there()
    for path in tried:
        for script in (
            f"cat {path}",
            f"echo forged > {path}",
            f"mv {path} taken",
            f"rm -f {path}; echo x > {path}",
        ):
            assert "secret" not in await sh(launcher, fenced(scope, rules), place, script)
            assert there() == before, script
    store.close()
    lines.close()
