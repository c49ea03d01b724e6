"""The layers, read from the imports: each module imports downwards, from where a name is defined, and in no circle."""

import ast
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

from source_kit import statements

ROOT = Path(__file__).parents[1]
LAYERS = {
    "version": 0,
    "runtime": 1,
    "net": 1,
    "sessions": 2,
    "llm": 2,
    "tools": 2,
    "compaction": 2,
    "config": 2,
    "memory": 3,
}
LAYERS |= {"pod": 4, "swarm": 5, "routing": 6, "system": 7, "pod_process": 8, "cli": 8}
#: What a family's folders have in common; the others do not know each other.
SHARED = {"actors.llm.http", "actors.cli.display", "actors.cli.swarm", "actors.swarm.runners"}
SHARED |= {"actors.cli.approvals", "actors.cli.pods", "actors.cli.sessions", "actors.tools.confinement"}
#: The folders of one pod, from the ground up: each is handed what lies above it, and imports only what lies below.
OF_A_POD = ["session", "accounts", "history", "memory", "runs", "approvals", "delegation"]
#: Modules that are one choice of many; only the two that put a pod together name them.
CONCRETE = {"actors.llm.scripted"} | {
    f"actors.llm.{name}.client" for name in ("offline", "openai", "responses", "anthropic")
}
CONCRETE |= {f"actors.sessions.{name}.store" for name in ("memory", "sqlite", "jsonl")}
ASSEMBLERS = {
    *(
        "actors/pod/assembly.py",
        "actors/pod/client_factory.py",
        "actors/pod/server_clients.py",
        "actors/system.py",
    )
}


def modules(package: str) -> list[str]:
    """All modules of a package but the top ``__init__``, which re-exports for outsiders."""
    found = (path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py"))
    return sorted(str(path) for path in found if path != Path(package, "__init__.py"))


@cache
def is_module(name: str) -> bool:
    return (ROOT / (name.replace(".", "/") + ".py")).is_file()


def imports(module: str, *, at_run_time: bool = False) -> tuple[str, ...]:
    """Every module that one imports, or imports a name from, wherever the statement stands; ``at_run_time``
    without those that only type checkers see.
    """
    return _both(module)[at_run_time]


@cache
def _both(module: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """All imports, and those at run time: the tree is not kept, since the collector would walk over all of them."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    everywhere, at_run_time = (
        tuple(_imports(module, statements(tree, for_types=for_types))) for for_types in (True, False)
    )
    return everywhere, at_run_time


def _imports(module: str, nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
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


def folder_of(module: str) -> str:
    """The same of a module's path."""
    return folder(module.removesuffix(".py").replace("/", "."))


def test_protocol_imports_msgspec_and_nothing_of_ours() -> None:
    # typing_extensions is part of every type checker, and imported for nobody else.
    allowed = sys.stdlib_module_names | {"msgspec", "protocol", "typing_extensions"}
    others = [
        f"{module} imports {name}"
        for module in modules("protocol")
        for name in imports(module)
        if name.split(".")[0] not in allowed
    ]
    assert not others


def test_a_module_imports_from_its_own_folder_or_a_lower_layer() -> None:
    reaching = [
        f"{module} reaches up or aside to {name}"
        for module in modules("actors")
        for name in imports(module)
        if name.startswith("actors.")
        and folder(name) != folder_of(module)
        and LAYERS[folder(name)] >= LAYERS[folder_of(module)]
    ]
    assert not reaching


def test_the_folders_of_a_family_do_not_know_each_other() -> None:
    """``llm/openai`` imports from ``llm`` and from what the formats share, and never from ``llm/anthropic``."""
    reaching = {
        module: others
        for module in modules("actors")
        if module.count("/") > 2 and folder_of(module) != "pod" and (others := others_of_its_family(module))
    }
    assert not reaching


def others_of_its_family(module: str) -> set[str]:
    own = str(Path(module).parent).replace("/", ".")
    family = own.rpartition(".")[0]
    reached = {name.rpartition(".")[0] for name in imports(module) if name.startswith(f"{family}.")}
    inside = {name for name in reached if name.startswith(f"{own}.")}
    return reached - {family, own} - inside - SHARED


def test_the_folders_of_a_pod_import_downwards() -> None:
    """What a part is handed of those above it, it knows by its type alone, which only type checkers import."""
    order = {f"actors/pod/{name}": place for place, name in enumerate(OF_A_POD)}
    assert order.keys() == {str(Path(module).parent) for module in modules("actors/pod")} - {"actors/pod"}
    reaching = [
        f"{module} reaches up to {name}"
        for module in modules("actors/pod")
        for name in imports(module, at_run_time=True)
        if order.get(name.rpartition(".")[0].replace(".", "/"), 0)
        > order.get(str(Path(module).parent), len(order))
    ]
    assert not reaching


def test_no_module_imports_itself_by_way_of_others() -> None:
    known = {name.removesuffix(".py").replace("/", "."): name for name in modules("actors")}
    graph = {
        name: [each for each in imports(path, at_run_time=True) if each in known]
        for name, path in known.items()
    }
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError


def test_a_name_is_imported_from_the_module_that_defines_it() -> None:
    elsewhere = [
        f"{module} imports from {name}"
        for module in modules("protocol") + modules("actors")
        for name in imports(module)
        if name.split(".")[0] in {"actors", "protocol"} and not is_module(name)
    ]
    assert not elsewhere


def test_only_the_assembly_and_the_system_name_concrete_clients_and_stores() -> None:
    naming = [
        f"{module} names {name}"
        for module in modules("actors")
        if module not in ASSEMBLERS
        for name in imports(module)
        if name in CONCRETE and folder(name) != folder_of(module)
    ]
    assert not naming
