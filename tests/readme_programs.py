"""``python -m tests.readme_programs FOLDER`` writes the programs of the README and of the pages of the documentation
there, each into a file of its own.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

_ROOT = Path(__file__).parents[1]
README = (_ROOT / "README.md").read_text(encoding="utf-8")
_DOCS = _ROOT / "docs"
_PRINTS = r"(?:\n\nIt prints\n\n```text\n(.*?)```)?"
_WHOLE = re.compile(r"```python\n((?:(?!```).)*asyncio\.run\(main\(\)\)\n)```" + _PRINTS, re.DOTALL)
_INCLUDED = re.compile(r"```\{literalinclude\} (\S+)\n[^`]*```" + _PRINTS, re.DOTALL)


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
    pages = {page.stem: page.read_text(encoding="utf-8") for page in sorted(_DOCS.glob("*.md"))}
    inline = [(name, found[1], found[2]) for name, text in pages.items() for found in _WHOLE.finditer(text)]
    included = [
        (name, (_DOCS / found[1]).read_text(encoding="utf-8"), found[2])
        for name, text in pages.items()
        for found in _INCLUDED.finditer(text)
    ]
    return [
        PageProgram(name, text, prints or "")
        for name, text, prints in inline + included
        if text.endswith("asyncio.run(main())\n")
    ]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(blocks("python"), 1):
        (folder / f"program_{number}.py").write_text(text, encoding="utf-8")
    for number, program in enumerate(page_programs(), 1):
        (folder / f"{program.page}_{number}.py").write_text(program.text, encoding="utf-8")
