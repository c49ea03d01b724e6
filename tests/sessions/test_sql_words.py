"""What SQL statements may say: Python 3.14 no longer takes all that Python 3.11 does."""

import ast
import re
from pathlib import Path

import pytest

import actors

#: With values in a sequence these are an error from Python 3.14 on, and a warning before.
NUMBERED = re.compile(r"\?\d")
SOURCES = sorted(Path(actors.__file__).parent.glob("sessions/sqlite*.py"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_placeholders_are_not_numbered(source: Path):
    texts = [node.value for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.Constant)]
    assert not [text for text in texts if isinstance(text, str) and NUMBERED.search(text)]
