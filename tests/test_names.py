"""Names and docstrings use the field's words; a function that has an effect is named by a verb."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from source_kit import statements

ROOT = Path(__file__).parents[1]
PACKAGES = ("actors", "protocol", "polypod", "bench", "tests")

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
#: Words that stood for publish, send, receive, notify, report, record and subscriber, all of them at once.
VAGUE = frozenset(
    "audience hear heard hearing hears tell telling tells told unheard untold".split()  # noqa: SIM905
)
#: What befell a request, reported to the endpoint that counts it.
REPORTS = {"answered", "failed"}
#: A question to a budget, for which one in a process of its own asks its parent for more.
ASKED_ABOVE = {"exceeded"}
#: Verbs that end in -ed.
VERBS = frozenset({"embed", "exceed", "feed", "need", "proceed", "seed", "shed", "speed", "succeed"})


def modules() -> Iterator[tuple[Path, str]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path, path.read_text(encoding="utf-8")


@cache
def participles() -> tuple[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef], ...]:
    """The functions whose name is a participle, and where each stands."""
    return tuple(
        (f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}", node)
        for path, text in modules()
        if any(map(is_participle, re.findall(r"\bdef (\w+)", text)))  # parsing is what takes time
        for node in statements(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and is_participle(node.name)
    )


def is_participle(name: str) -> bool:
    word = name.strip("_").split("_")[0]
    return word in IRREGULAR or (word.endswith("ed") and word not in VERBS)


def gives_nothing(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return isinstance(function.returns, ast.Constant) and function.returns.value is None


def test_a_function_that_is_called_for_its_effect_is_no_participle() -> None:
    wrong = [
        place for place, function in participles() if gives_nothing(function) and function.name not in REPORTS
    ]
    assert not wrong, "name what it does: claim, not claimed"


def changes_its_object(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a method that is called as one sets an attribute of its object."""
    if any(
        "property" in ast.unparse(each) or "contextmanager" in ast.unparse(each)
        for each in function.decorator_list
    ):
        return False
    return any(
        isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
        for node in ast.walk(function)
    )


def test_a_function_that_changes_its_object_is_no_participle_whatever_it_returns() -> None:
    wrong = [
        place
        for place, function in participles()
        if changes_its_object(function) and function.name not in REPORTS | ASKED_ABOVE
    ]
    assert not wrong, "name what it does: take, not taken"


def test_the_rule_knows_participles_from_verbs() -> None:
    names = ["claimed", "_told_late", "kept", "feed", "store_refused", "exceeded", "run", "needs_history"]
    assert [name for name in names if is_participle(name)] == ["claimed", "_told_late", "kept", "exceeded"]


def vague_words(text: str) -> Iterator[tuple[int, str]]:
    """The vague words among a module's names, and in its comments and docstrings, with their lines.

    ``tell`` is the name of an operation, of actors and of files: as a method, and in double backticks.
    """
    if not vague_in(spaced(text)):  # reading it by its tokens is what takes time
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield from ((token.start[0], word) for word in vague_in(token.string))
        elif token.type == tokenize.NAME and token.string != "tell":
            yield from ((token.start[0], token.string) for _ in vague_in(spaced(token.string)))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            line = getattr(node, "lineno", 1)
            yield from ((line, word) for word in vague_in(ast.get_docstring(node) or ""))


def spaced(name: str) -> str:
    return re.sub(r"_|(?<=[a-z])(?=[A-Z])", " ", name)


def vague_in(prose: str) -> list[str]:
    return [word for word in re.findall(r"[a-z]+", prose.replace("``tell``", "").lower()) if word in VAGUE]


def test_what_is_sent_published_or_reported_is_called_that() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {word}"
        for path, text in modules()
        for line, word in vague_words(text)
    ]
    assert not wrong, "say send, publish, receive, notify, report or record"


def test_a_docstring_can_be_understood_by_itself() -> None:
    """One that says that something is "the same" means the one above it, which its reader has not seen."""
    leaning = re.compile(r'"""(As above|The same([,.;:]| of | for | in | with | where ))')
    wrong = [
        f"{path.relative_to(ROOT)}:{number}"
        for path, text in modules()
        if path.relative_to(ROOT).parts[0] not in {"bench", "tests"}
        for number, line in enumerate(text.splitlines(), 1)
        if leaning.search(line)
    ]
    assert not wrong, "say the same what of what"


def test_the_rule_sees_names_comments_and_docstrings_and_lets_the_operation_be() -> None:
    module = '''
"""An actor is asked or gets a ``tell``."""

def f(ref, file):  # who hears
    """It is told."""
    ref.tell(f"tell me, {file.tell()}")
    untold, wasHeard, litellm = 1, 2, 3
'''
    assert [word for _, word in vague_words(module)] == ["hears", "untold", "wasHeard", "told"]


def test_no_two_modules_of_tests_have_one_name() -> None:
    """Where both are run, the second is refused."""
    places: dict[str, list[str]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        places.setdefault(path.name, []).append(str(path.relative_to(ROOT)))
    assert [each for each in places.values() if len(each) > 1] == []
