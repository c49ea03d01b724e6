"""The public names: all there, all from `polypod`, and cheap to have."""

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import actors
import polypod
import polypod.log
import polypod.testing
import protocol

HEAVY = {"httpx", "aiohttp", "rich", "click", "prompt_toolkit", "structlog"}


#: Modules that only some pods and programs need; most bring others along.
LATER = {
    *("actors.compaction.compose", "actors.compaction.cut", "actors.compaction.summary"),
    *("actors.llm.cassette", "actors.llm.tape", "actors.llm.http.presets"),
    "actors.memory",
    *(
        "actors.pod.approvals.asking_calls",
        "actors.pod.approvals.asking_play",
        "actors.pod.approvals.asking_runner",
        "actors.pod.approvals.asking_runs",
        "actors.pod.channel",
        "actors.pod.delegation.delegation",
        "actors.pod.pod",
        "actors.pod.session.fork",
        "actors.pod.service",
        "actors.pod.session.past_events",
    ),
    *(
        "actors.routing",
        "actors.swarm.agents",
        "actors.swarm.runners",
        "actors.tools.mcp",
        "actors.runtime.restarts",
        "mcp",
        "shlex",
    ),
    *("actors.pod.sourced_tools", "actors.pod.history.summarizer", "actors.pod.history.task_list"),
    *("actors.sessions.jsonl.store", "actors.sessions.sqlite.store"),
    *("actors.config.configuration", "protocol.config", "actors.routing", "actors.pod.accounts.tiered"),
    *("actors.tools.builtin", "actors.tools.hooks", "actors.tools.filesystem.view"),
    *("json", "sqlite3", "tempfile", "tomllib"),
}


def python(code: str, *, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, check=False)


ROOT = Path(polypod.__file__).parents[1]
OURS = ("actors", "protocol")


@pytest.mark.parametrize("package", [polypod, polypod.log, polypod.testing, actors, protocol])
def test_every_public_name_is_there_once(package: object):
    names = package.__all__
    assert len(set(names)) == len(names)
    assert not [name for name in names if not hasattr(package, name)]


def test_both_packages_have_the_same_names_and_those_of_the_protocol():
    assert set(polypod.__all__) - set(actors.__all__) == {"__version__"}
    assert set(actors.__all__) <= set(polypod.__all__), "actors/__init__.py has names that polypod has not"
    assert set(protocol.__all__) <= set(actors.__all__), "actors/__init__.py lacks names of the protocol"
    assert all(getattr(polypod, name) is getattr(actors, name) for name in actors.__all__)


def test_a_name_is_imported_when_it_is_first_used():
    program = "import sys, polypod; print('actors.system' in sys.modules, 'PodSystem' in dir(polypod)); "
    program += "polypod.PodSystem; print('actors.system' in sys.modules, 'PodSystem' in vars(polypod))"
    done = python(program)
    assert done.stdout.split() == ["False", "True", "True", "True"], done.stdout + done.stderr


@pytest.mark.parametrize("package", ["polypod", "actors"])
def test_dir_lists_all_public_names_and_imports_none(package: str) -> None:
    program = (
        f"import sys, {package} as it; print(set(it.__all__) - set(dir(it)), 'actors.system' in sys.modules)"
    )
    done = python(program)
    assert done.stdout == "set() False\n", done.stdout + done.stderr


def test_the_test_doubles_have_a_module_of_their_own():
    assert polypod.testing.ScriptedClient is polypod.ScriptedClient


def test_every_public_type_of_the_protocol_is_exported():
    for path in Path(protocol.__file__).parent.glob("*.py"):
        if path.stem in {
            "channel",
            "pod_process",
            "shared_servers",
        }:  # frames are made and read by two modules alone
            continue
        if path.stem == "config":  # the sections of a file that most programs never read
            continue
        module = importlib.import_module(f"protocol.{path.stem}")
        for name, value in vars(module).items():
            of_ours = isinstance(value, type) and value.__module__ == module.__name__ and name[0] != "_"
            if of_ours and issubclass(value, msgspec.Struct | Exception):
                assert name in protocol.__all__, f"{name} of {module.__name__}"


def test_the_version_is_that_of_the_distribution():
    done = python("import polypod; print(polypod.__version__)")
    assert done.stdout.strip() == polypod.__version__
    for command in (["-m", "polypod"], ["-m", "actors.cli.main"]):
        reported = subprocess.run(
            [sys.executable, *command, "--version"], capture_output=True, text=True, check=True
        )
        assert reported.stdout == f"polypod {polypod.__version__}\n"


def test_the_actor_of_pods_is_imported_before_a_system_has_a_thread():
    """A process that is forked while the system's thread imported it could never have a pod."""
    done = python("import polypod, sys; polypod.PodSystem(); print('actors.pod.pod' in sys.modules)")
    assert done.stdout.strip() == "True", done.stdout + done.stderr


#: What a first program imports.
FIRST = (
    "from {} import PodManifest, PodSystem, Scope, tool; import sys; print(sorted({!r} & set(sys.modules)))"
)


@pytest.mark.parametrize("package", ["polypod", "actors"])
def test_importing_it_brings_no_http_client_and_no_terminal(package: str):
    done = python(FIRST.format(package, HEAVY))
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_importing_it_brings_only_what_is_needed_before_there_is_a_pod():
    done = python(FIRST.format("polypod", LATER))
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


#: What may stand in the way, and what of it is named.
STRANGERS = [("{}.py", "{}.py"), ("{}/__init__.py", "{}/__init__.py"), ("{}/notes.txt", "{}")]


@pytest.fixture(params=[(name, *each) for name in OURS for each in STRANGERS], ids=lambda p: f"{p[0]}-{p[1]}")
def stranger(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A file or folder of the user's, called like a package of ours: its name, and the path to be named."""
    name, file, named = request.param
    path = tmp_path / file.format(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text("raise SystemExit('the stranger was run')\n")
    return name, tmp_path / named.format(name)


def names_the_stranger(last: str, stranger: tuple[str, Path]) -> None:
    name, path = stranger
    assert f"polypod needs its own package {name!r}" in last
    assert f"another one first: {path}. " in last
    assert "Rename or move that file or folder" in last


#: Ours comes last on the path, but for the package that is asked for.
PROGRAM = """
import sys
from importlib.machinery import PathFinder
class Ours:
    find_spec = staticmethod(lambda name, path=None, target=None: PathFinder.find_spec(name, [{root!r}]))
sys.path = [folder for folder in sys.path if folder != {root!r}]
sys.meta_path.append(Ours)
import {package}
"""


@pytest.mark.parametrize("package", ["polypod", "actors"])
def test_what_stands_in_the_way_is_named_with_what_to_do_and_not_run(
    package: str, stranger: tuple[str, Path], tmp_path: Path
):
    if stranger[0] == package:
        return  # then it is what was imported
    done = python(PROGRAM.format(root=str(ROOT), package=package), cwd=tmp_path)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: "), done
    names_the_stranger(last, stranger)


def test_a_stranger_that_was_imported_before_is_named_too(tmp_path: Path):
    (tmp_path / "protocol.py").write_text("from polypod import PodSystem\n")
    done = python("import protocol", cwd=tmp_path)
    names_the_stranger(done.stderr.strip().splitlines()[-1], ("protocol", tmp_path / "protocol.py"))


@pytest.mark.parametrize("name", OURS)
def test_a_distribution_that_has_put_its_files_over_ours_is_named(name: str, tmp_path: Path):
    for package in ("polypod", *OURS):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / name / "__init__.py").write_text("something = 'else'\n")
    done = python("import polypod", cwd=tmp_path)
    names_the_stranger(done.stderr.strip().splitlines()[-1], (name, tmp_path / name / "__init__.py"))


def test_the_command_says_what_stands_in_the_way_without_a_traceback(
    stranger: tuple[str, Path], tmp_path: Path
):
    if stranger[1].is_dir() and not (stranger[1] / "__init__.py").exists():
        return  # a folder without an __init__ gives way to ours on the same path
    done = subprocess.run(
        [sys.executable, "-m", "polypod", "ps"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    names_the_stranger(line, stranger)


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("actors.llm.openai", "OpenAIClient"),
        ("actors.llm.anthropic", "AnthropicClient"),
        ("actors.llm.offline", "OfflineClient"),
        ("actors.sessions.memory", "MemoryStore"),
        ("actors.sessions.sqlite", "SQLiteStore"),
        ("actors.sessions.jsonl", "JsonLinesStore"),
    ],
)
def test_a_folder_has_the_one_class_that_it_is_about(package: str, name: str) -> None:
    module = importlib.import_module(package)
    assert getattr(module, name).__module__.startswith(f"{package}.")
    with pytest.raises(AttributeError, match="no attribute 'Another'"):
        _ = module.Another


def test_the_memory_store_is_found_where_earlier_versions_had_it() -> None:
    assert importlib.import_module("actors.sessions.store").MemoryStore is polypod.MemoryStore
