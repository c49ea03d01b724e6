"""The floors of the house, read from the imports: each module imports downwards, from where a name is defined."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {"runtime": 1, "sessions": 2, "llm": 2, "tools": 2, "compaction": 2, "pod": 3, "swarm": 4}
FLOORS |= {"version": 0, "system": 5, "cli": 6, "server": 6}
#: Modules that are one choice of many; only the two that put a pod together name them.
CONCRETE = {f"actors.llm.{name}" for name in ("scripted", "offline", "openai", "anthropic")}
CONCRETE |= {f"actors.sessions.{name}" for name in ("sqlite", "jsonl", "postgres")}
ASSEMBLERS = {"actors/pod/assembly.py", "actors/pod/models.py", "actors/system.py"}


def modules(package: str) -> list[str]:
    """All modules of a package but the top ``__init__``, which re-exports for outsiders."""
    found = (path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py"))
    return sorted(str(path) for path in found if path != Path(package, "__init__.py"))


def is_module(name: str) -> bool:
    return (ROOT / (name.replace(".", "/") + ".py")).is_file()


@cache
def imports(module: str) -> tuple[str, ...]:
    """Every module that one imports, or imports a name from, wherever the statement stands."""
    return tuple(_imports(module))


def _imports(module: str) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if is_module(inner) else str(node.module)


def folder(name: str) -> str:
    """``actors.llm.base`` lives in ``llm``, ``actors.system`` in ``system``."""
    return name.split(".")[1]


@pytest.mark.parametrize("module", modules("protocol"))
def test_protocol_imports_msgspec_and_nothing_of_ours(module: str) -> None:
    # typing_extensions is part of every type checker, and imported for nobody else.
    allowed = sys.stdlib_module_names | {"msgspec", "protocol", "typing_extensions"}
    assert not [name for name in imports(module) if name.split(".")[0] not in allowed]


@pytest.mark.parametrize("module", modules("actors"))
def test_a_module_imports_from_its_own_folder_or_a_lower_floor(module: str) -> None:
    own = folder(module.removesuffix(".py").replace("/", "."))
    for name in imports(module):
        if name.startswith("actors."):
            target = folder(name)
            assert target == own or FLOORS[target] < FLOORS[own], f"{module} reaches up or aside to {name}"


@pytest.mark.parametrize("module", [name for name in modules("actors") if name.count("/") > 2])
def test_a_room_inside_a_folder_imports_nothing_that_stands_around_it(module: str) -> None:
    """``actors/pod`` imports from ``actors/pod/memory``, and never the other way."""
    room = str(Path(module).parent).replace("/", ".")
    around = room.rpartition(".")[0]
    reached = [name for name in imports(module) if name.startswith(f"{around}.")]
    outside = [name for name in reached if not name.startswith(f"{room}.")]
    assert not outside, f"{module} reaches out of its room to {outside}"


@pytest.mark.parametrize("module", modules("protocol") + modules("actors"))
def test_a_name_is_imported_from_the_module_that_defines_it(module: str) -> None:
    for name in imports(module):
        if name.split(".")[0] in {"actors", "protocol"}:
            assert is_module(name), f"{module} imports from {name}"


@pytest.mark.parametrize("module", modules("actors"))
def test_only_the_assembly_and_the_system_name_concrete_clients_and_stores(module: str) -> None:
    own = folder(module.removesuffix(".py").replace("/", "."))
    chosen = [name for name in imports(module) if name in CONCRETE and folder(name) != own]
    assert not chosen or module in ASSEMBLERS, f"{module} names {chosen}"
