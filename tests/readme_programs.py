"""``python -m tests.readme_programs FOLDER`` writes the programs of the README and of the pages of the documentation
there, each into a file of its own.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

_ROOT = Path(__file__).parents[1]
README = (_ROOT / "README.md").read_text(encoding="utf-8")
_WHOLE = re.compile(
    r"```python\n((?:(?!```).)*asyncio\.run\(main\(\)\)\n)```(?:\n\nIt prints\n\n```text\n(.*?)```)?",
    re.DOTALL,
)


class PageProgram(NamedTuple):
    """A program that a page has whole, and what it prints as far as the page says."""

    page: str
    text: str
    prints: str


def blocks(language: str) -> list[str]:
    """The README's code in a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def page_programs() -> list[PageProgram]:
    """The programs of the documentation's pages."""
    return [
        PageProgram(page.stem, found[1], found[2] or "")
        for page in sorted((_ROOT / "docs").glob("*.md"))
        for found in _WHOLE.finditer(page.read_text(encoding="utf-8"))
    ]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(blocks("python"), 1):
        (folder / f"program_{number}.py").write_text(text, encoding="utf-8")
    for number, program in enumerate(page_programs(), 1):
        (folder / f"{program.page}_{number}.py").write_text(program.text, encoding="utf-8")
