"""Python's own reading of our source, as fast as a rule about all of it wants."""

import ast
from collections.abc import Iterator

#: What statements hold that are statements, or hold some.
_INNER = ("body", "orelse", "handlers", "finalbody", "cases")


def statements(tree: ast.AST, *, for_types: bool = True) -> Iterator[ast.AST]:
    """All statements in a module, however deep, and none of the expressions, which are most of a tree; those
    that only type checkers see where ``for_types``.
    """
    for name in _INNER:
        if for_types or name != "body" or not _is_for_types(tree):
            for node in getattr(tree, name, ()):
                yield node
                yield from statements(node, for_types=for_types)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
