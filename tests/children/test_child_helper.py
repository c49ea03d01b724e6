"""What runs in the helper processes needs the standard library alone, and frames survive any splitting."""

import ast
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from actors.runtime.children.frames import Frames, framed

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "actors" / "runtime" / "children"
PACKAGE = "actors.runtime.children"


def imported(module: str) -> set[str]:
    tree = ast.parse((FOLDER / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            is_package = (ROOT / str(node.module).replace(".", "/")).is_dir()
            names |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if is_package else {str(node.module)}
            )
    return names


def test_helpers_import_the_standard_library_and_each_other_alone() -> None:
    seen: set[str] = set()
    waiting = ["helper"]
    while waiting:
        module = waiting.pop()
        seen.add(module)
        names = imported(module)
        own = {name.removeprefix(f"{PACKAGE}.") for name in names if name.startswith(f"{PACKAGE}.")}
        foreign = {name for name in names if not name.startswith(f"{PACKAGE}.")}
        assert {name.split(".")[0] for name in foreign} <= sys.stdlib_module_names, module
        waiting += own - seen
    assert {"warden", "confinement.mounts"} <= seen


VALUES = st.recursive(
    st.none() | st.integers() | st.binary() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner).map(tuple),
    max_leaves=10,
)


@given(st.lists(VALUES), st.data())
def test_frames_come_out_whole_however_they_are_split(values: list[object], data: st.DataObject) -> None:
    whole = b"".join(map(framed, values))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    frames = Frames()
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert [value for piece in pieces for value in frames.feed(piece)] == values
