"""Reads a package's source: depth and width of its classes, its folders, its import cycles."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec import Struct


class ClassShape(Struct, frozen=True):
    """A class: ``depth`` counts it and those it inherits from, ``methods`` the names of all their methods;
    bases outside the measured packages do not count.
    """

    name: str
    module: str
    depth: int
    methods: int


class House(Struct, frozen=True):
    """What was found in one or several packages that belong together.

    ``circles`` are groups of modules that need each other to be imported.
    """

    modules: int
    lines: int
    deepest: ClassShape | None
    widest: ClassShape | None
    longest_file: tuple[str, int]
    longest_function: tuple[str, int]
    largest_folders: list[tuple[str, int]]
    circles: list[list[str]]


class _Class(Struct, frozen=True):
    module: str
    bases: tuple[str, ...]
    methods: frozenset[str]


def read_house(packages: Iterable[Path]) -> House:
    """Measure the packages in these folders, all of their ``.py`` files except tests.

    Raises FileNotFoundError if a folder contains no Python files.
    """
    trees: dict[str, ast.Module] = {}
    lines: dict[str, int] = {}
    for folder in packages:
        found = sorted(path for path in folder.rglob("*.py") if not _is_test(path.relative_to(folder)))
        if not found:
            raise FileNotFoundError(f"{folder} holds no Python files")
        for path in found:
            text = path.read_text(encoding="utf-8")
            name = ".".join((folder.name, *path.relative_to(folder).with_suffix("").parts))
            trees[name.removesuffix(".__init__")] = ast.parse(text)
            lines[name] = text.count("\n")
    shapes = _shapes(trees)
    functions = _functions(trees)
    return House(
        modules=len(trees),
        lines=sum(lines.values()),
        deepest=max(shapes, key=lambda shape: (shape.depth, shape.methods), default=None),
        widest=max(shapes, key=lambda shape: (shape.methods, shape.depth), default=None),
        longest_file=max(lines.items(), key=lambda item: item[1]),
        longest_function=max(functions, key=lambda item: item[1], default=("", 0)),
        largest_folders=Counter(name.rpartition(".")[0] for name in lines).most_common(3),
        circles=_circles({name: set(_needs(name, tree, set(trees))) for name, tree in trees.items()}),
    )


def _is_test(path: Path) -> bool:
    return any(part in {"test", "tests", "_tests", "testing"} for part in path.parts[:-1])


def _functions(trees: dict[str, ast.Module]) -> list[tuple[str, int]]:
    return [
        (f"{name}.{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1)
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def _shapes(trees: dict[str, ast.Module]) -> list[ClassShape]:
    classes = {
        node.name: _Class(
            module,
            tuple(filter(None, map(_name_of, node.bases))),
            frozenset(
                inner.name for inner in node.body if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
            ),
        )
        for module, tree in trees.items()
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }

    def measure(name: str, above: tuple[str, ...] = ()) -> tuple[int, frozenset[str]]:
        own = classes[name]
        bases = [measure(base, (*above, name)) for base in own.bases if base in classes and base not in above]
        depth = 1 + max((base[0] for base in bases), default=0)
        return depth, own.methods.union(*(methods for _, methods in bases))

    measured = ((name, *measure(name)) for name in classes)
    return [ClassShape(name, classes[name].module, depth, len(methods)) for name, depth, methods in measured]


def _name_of(base: ast.expr) -> str:
    if isinstance(base, ast.Subscript):
        base = base.value
    return base.id if isinstance(base, ast.Name) else getattr(base, "attr", "")


def _needs(name: str, tree: ast.Module, known: set[str]) -> Iterator[str]:
    """The modules that a module imports while it is loaded: not in functions, and not only for type
    checkers.
    """
    package = name if any(other.startswith(f"{name}.") for other in known) else name.rpartition(".")[0]
    for node in _executed(tree.body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known and alias.name != name)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join((*anchor, *filter(None, (node.module,))))
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                target = inner if inner in known else base
                if target in known and target != name:
                    yield target


def _executed(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If):
            if "TYPE_CHECKING" not in ast.unparse(node.test):
                yield from _executed(node.body)
            yield from _executed(node.orelse)
        elif isinstance(node, ast.Try):
            yield from _executed([*node.body, *node.orelse, *node.finalbody])
            for handler in node.handlers:
                yield from _executed(handler.body)
        elif isinstance(node, ast.With | ast.ClassDef):
            yield from _executed(node.body)
        else:
            yield node


def _circles(needs: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected groups of more than one module, largest first (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in needs[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            at = stack.index(name)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1:
                found.append(sorted(group))

    for name in needs:
        if name not in index:
            visit(name)
    return sorted(found, key=len, reverse=True)
