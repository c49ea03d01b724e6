"""The documentation: every public name has its place in the API reference, and each program runs as pasted."""

import inspect
import re
import runpy
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from packaging.version import Version
from readme_programs import PageProgram, page_programs
from warm import Popen

import actors
import protocol
from actors.cli.main import polypod
from actors.cli.man_page import man_page
from actors.llm.http.presets import PRESETS
from bench import quotes
from protocol.approval import ApprovalRule
from protocol.config import (
    ChainEntrySection,
    ChainSection,
    Config,
    LocalModelSection,
    PoolSection,
    RunnerSection,
    VerifierSection,
)
from protocol.errors import MODEL_ERROR_KINDS, PolypodError
from protocol.events import DURABLE_EVENTS, TRANSIENT_EVENTS, RunOutcome
from protocol.manifest import PodManifest
from protocol.mcp import McpServer
from protocol.model_settings import ModelSettings
from protocol.scope import Rule

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def documented_modules() -> set[str]:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    return set(re.findall(r"automodule:: (\S+)", pages))


def test_each_public_class_and_function_is_in_the_api_reference() -> None:
    documented = documented_modules()
    missing = {
        name: value.__module__
        for name in actors.__all__
        if (inspect.isclass(value := getattr(actors, name)) or inspect.isfunction(value))
        and value.__module__.startswith(("actors.", "protocol."))
        and value.__module__ not in documented
    }
    assert not missing


def test_each_page_of_the_api_reference_is_in_its_index() -> None:
    index = (DOCS / "api" / "index.md").read_text(encoding="utf-8")
    for page in (DOCS / "api").glob("*.md"):
        assert page.stem == "index" or f"\n{page.stem}\n" in index


@pytest.mark.skipif(
    Version(version("click")) < Version("8.5"), reason="an older click writes optional arguments otherwise"
)
def test_the_manual_page_is_that_of_the_commands() -> None:
    kept = (ROOT / "man" / "polypod.1").read_text(encoding="utf-8")
    assert kept == man_page(polypod), "make man makes it anew"


def test_each_page_is_found_from_the_first_one() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    for page in DOCS.glob("*.md"):
        found = page.stem == "index" or (f"]({page.name})" in index and f"\n{page.stem}\n" in index)
        assert found, f"{page.name} is neither linked nor in the table of contents"


def test_the_recorded_terminal_shows_what_the_commands_print() -> None:
    made = runpy.run_path(str(DOCS / "record_terminal.py"))
    kept = (DOCS / "terminal.svg").read_text(encoding="utf-8")
    assert made["words"](kept) == made["words"](made["record"]()), "python docs/record_terminal.py"


@pytest.mark.parametrize("page", quotes.PAGES, ids=lambda page: page.name)
def test_figures_that_are_quoted_are_those_of_the_last_bench(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert quotes.quote(text, quotes.RESULTS.read_text(encoding="utf-8")) == text, "python -m bench quotes"


PAGES = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "bench").glob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        place, _, part = link.partition("#")
        if "://" in place or place.startswith("mailto:"):
            continue
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), f"{page.name}: {link}"
        assert not part or part in anchors_of(target), f"{page.name}: {link} has no such heading"


def anchors_of(page: Path) -> set[str]:
    """What the headings of a page are called in links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_the_drawing_of_the_layers_has_each_folder() -> None:
    drawing = ARCHITECTURE.split("```")[1]
    drawn = {
        f"{before}{name}"
        for before, names in re.findall(r"([\w/]*)\{([\w,]+)\}/", drawing)
        for name in names.split(",")
    } | set(re.findall(r"([\w/]+)/(?=\s)", drawing))
    folders = {str(each.parent.relative_to(ROOT / "actors")) for each in (ROOT / "actors").rglob("*.py")}
    parts = {folder: folder.rpartition("/") for folder in folders - {"."}}
    assert [folder for folder, (_, _, name) in sorted(parts.items()) if not {folder, name} & drawn] == [], (
        "say in ARCHITECTURE.md what it is for"
    )


def test_each_module_that_the_architecture_names_is_there() -> None:
    there = {f"/{path.relative_to(ROOT)}" for path in ROOT.glob("*/**/*.py")}
    named = set(re.findall(r"`((?:[\w.-]+/)*[\w-]+\.py)`", ARCHITECTURE))
    assert not [name for name in named if not any(path.endswith(f"/{name}") for path in there)]


#: Pages whose TOML is that of ``polypod.toml``.
CONFIGURED = {"chains", "configuration"}


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_each_manifest_that_a_page_shows_loads(page: Path) -> None:
    shown = re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    for text in shown:
        if page.stem in CONFIGURED:
            msgspec.toml.decode(text, type=Config)
        else:
            PodManifest.from_toml(text)


@pytest.mark.parametrize("program", page_programs(), ids=lambda program: program.page)
def test_each_program_runs_as_pasted(program: PageProgram, tmp_path: Path) -> None:
    if program.page == "mcp":
        pytest.importorskip("mcp", reason="the extra mcp is not installed")
    (tmp_path / "program.py").write_text(program.text, encoding="utf-8")
    with Popen(
        [sys.executable, "program.py"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    ) as process:
        out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert out
    assert out.endswith(program.prints)


def first_column(page: str, heading: str) -> list[str]:
    """The names in the first column of the table of a page that begins so."""
    text = (DOCS / page).read_text(encoding="utf-8")
    table = text.partition(f"| {heading} |")[2].partition("\n\n")[0]
    return [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)", row.split(" | ")[0])]


def test_each_outcome_of_a_run_is_reported() -> None:
    assert sorted(first_column("outcomes.md", "outcome")) == sorted(get_args(RunOutcome))


def test_each_kind_of_server_and_each_setting_is_documented() -> None:
    assert set(first_column("models.md", "scheme")) == {"offline", *PRESETS}
    assert set(first_column("models.md", "setting")) == set(ModelSettings.__struct_fields__)


def test_each_kind_of_a_models_error_and_each_block_and_field_is_reported_to_who_writes_a_client() -> None:
    assert sorted(first_column("clients.md", "kind")) == sorted(MODEL_ERROR_KINDS)
    blocks = [kind.__name__ for kind in get_args(actors.Block)]
    assert sorted(first_column("clients.md", "block")) == sorted(blocks)
    assert sorted(first_column("clients.md", "field")) == sorted(actors.Request.__struct_fields__)


def test_each_key_of_a_manifest_is_on_its_page() -> None:
    text = (DOCS / "manifest.md").read_text(encoding="utf-8")
    sections = msgspec.structs.asdict(PodManifest())
    tables = {name: type(value) for name, value in sections.items() if isinstance(value, msgspec.Struct)}
    tables |= {"scope": Rule, "approval": ApprovalRule, "tools.mcp": McpServer}
    for name, kind in tables.items():
        assert re.search(rf"`\[\[?{name}[\].]", text), f"manifest.md has no section for {name}"
        for key in kind.__struct_fields__:
            assert f"\n| `{key}` |" in text, f"manifest.md lacks {name}.{key}"


def test_each_key_of_a_configuration_is_on_its_page() -> None:
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    for name in Config.__struct_fields__:
        assert re.search(rf"^## .*`\[+{name}[\].]", text, re.MULTILINE), f"it has no section for {name}"
    kinds = (LocalModelSection, RunnerSection, ChainSection, ChainEntrySection, VerifierSection, PoolSection)
    for kind in kinds:
        for key in kind.__struct_fields__:
            assert f"\n| `{key}` |" in text, f"configuration.md lacks {key} of {kind.__name__}"


def test_each_event_is_on_its_page_as_what_it_is() -> None:
    durable, transient = (DOCS / "events.md").read_text(encoding="utf-8").split("## Transient")
    for kinds, text in ((DURABLE_EVENTS, durable), (TRANSIENT_EVENTS, transient)):
        assert sorted(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == sorted(
            kind.__name__ for kind in kinds
        )


def test_each_error_is_on_its_page() -> None:
    known = {
        name
        for name in protocol.__all__
        if isinstance(kind := getattr(protocol, name), type) and issubclass(kind, PolypodError)
    }
    assert set(first_column("errors.md", "error")) == known
