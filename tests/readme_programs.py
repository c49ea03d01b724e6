"""``python -m tests.readme_programs FOLDER`` writes the README's programs there, each into a file of its own."""

import re
import sys
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The README's code in a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(blocks("python"), 1):
        (folder / f"program_{number}.py").write_text(text, encoding="utf-8")
