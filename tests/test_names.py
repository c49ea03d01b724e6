"""A function that has an effect is named by a verb: ``claim``, not ``claimed``."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("actors", "protocol", "polypod", "bench")

#: Participles that do not end in -ed.
IRREGULAR = frozenset(
    [
        "begun",
        "broken",
        "brought",
        "built",
        "done",
        "drawn",
        "driven",
        "found",
        "given",
        "gone",
        "heard",
        "held",
        "kept",
        "left",
        "lost",
        "made",
        "met",
        "said",
        "sent",
        "shown",
        "spoken",
        "taken",
        "told",
        "thought",
        "torn",
        "written",
    ]
)
#: What befell a request, reported to the endpoint that counts it.
REPORTS = {"answered", "failed"}
#: Verbs that end in -ed.
VERBS = frozenset({"embed", "exceed", "feed", "need", "proceed", "seed", "shed", "speed", "succeed"})


def functions() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield path, node


def is_participle(name: str) -> bool:
    word = name.strip("_").split("_")[0]
    return word in IRREGULAR or (word.endswith("ed") and word not in VERBS)


def gives_nothing(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return isinstance(function.returns, ast.Constant) and function.returns.value is None


def test_a_function_that_is_called_for_its_effect_is_no_participle() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{function.lineno}: {function.name}"
        for path, function in functions()
        if gives_nothing(function) and is_participle(function.name) and function.name not in REPORTS
    ]
    assert not wrong, "name what it does: claim, not claimed"


def test_the_rule_knows_participles_from_verbs() -> None:
    names = ["claimed", "_told_late", "kept", "feed", "store_refused", "exceeded", "run", "needs_history"]
    assert [name for name in names if is_participle(name)] == ["claimed", "_told_late", "kept", "exceeded"]
