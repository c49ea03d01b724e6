"""Reads how people name files: removes quotes, turns "the file X" into X, and "Python files" into a glob."""

from __future__ import annotations

import re

_KINDS = {
    "c": "*.[ch]",
    "css": "*.css",
    "csv": "*.csv",
    "go": "*.go",
    "html": "*.html",
    "java": "*.java",
    "javascript": "*.js",
    "json": "*.json",
    "log": "*.log",
    "markdown": "*.md",
    "python": "*.py",
    "rust": "*.rs",
    "shell": "*.sh",
    "text": "*.txt",
    "toml": "*.toml",
    "typescript": "*.ts",
    "yaml": "*.{yaml,yml}",
}
#: Stands for the path that was mentioned last.
IT = "\ue002"

_FLAGS = re.IGNORECASE
_BEFORE = re.compile(r"(?:it|(?:this|that|the same) file)", _FLAGS)
_HERE = re.compile(
    r"(?:here|there"
    r"|(?:(?:this|the|my|our) )?(?:(?:current|working) )?(?:directory|folder|project|repo|repository))?",
    _FLAGS,
)
_MANY = re.compile(
    r"(?P<all>(?:all|every|each) )?(?:of )?(?:the )?(?P<kind>\S+) files?"
    r"(?: (?:in|under|below) (?P<folder>.+))?",
    _FLAGS,
)
_BEFORE_PATH = re.compile(r"^(?:the )?(?:contents? of )?(?:the )?(?:(?:file|folder|directory) )?", _FLAGS)
_AFTER_PATH = re.compile(r"(?<=\S) (?:file|folder|directory)$", _FLAGS)
_BEFORE_NAME = re.compile(r"^(?:(?:all|any|every|each|the|a|an|of|me) )+", _FLAGS)
_NAMED = re.compile(r"^(?:files?|folders?|director(?:y|ies)) (?:named|called|like|matching) ", _FLAGS)


class Quoted:
    """A text whose quoted parts are replaced by marks, so that their content is not taken for words.

    White space becomes one blank, except for line ends, which separate requests.
    """

    _QUOTE = re.compile(r"\"([^\"]*)\"|“([^”]*)”|`([^`]*)`|(?<!\w)'([^']*)'(?!\w)")
    _MARK = re.compile("\ue000(\\d+)\ue001")

    def __init__(self, text: str) -> None:
        self._parts: list[tuple[str, str]] = []
        self.text = re.sub(r"[^\S\n]+", " ", self._QUOTE.sub(self._taken, text)).replace("\u2019", "'")

    def _taken(self, found: re.Match[str]) -> str:
        self._parts.append((found[0], next((part for part in found.groups() if part is not None), "")))
        return f"\ue000{len(self._parts) - 1}\ue001"

    def plain(self, text: str) -> str:
        """``text`` with the quoted parts, without the quotes."""
        return self._MARK.sub(lambda found: self._parts[int(found[1])][1], text).strip()

    def raw(self, text: str) -> str:
        """``text`` as it was written, including the quotes."""
        return self._MARK.sub(lambda found: self._parts[int(found[1])][0], text).strip()

    def path(self, text: str) -> str:
        """The path, or the glob, that words mean: IT for the one mentioned before, the working directory for
        no words.
        """
        bare = re.sub(r"(?<=[^\s.])[.,!?:]+$", "", text.strip())
        if _BEFORE.fullmatch(bare):
            return IT
        if _HERE.fullmatch(bare):
            return "."
        many = _MANY.fullmatch(bare)
        if many is not None and (many["all"] or many["kind"].lower() in _KINDS):
            folder = self.path(many["folder"] or "")
            name = _KINDS.get(many["kind"].lower(), f"*.{many['kind'].lstrip('.')}")
            return f"**/{name}" if folder == "." else f"{folder}/**/{name}"
        return self.plain(_AFTER_PATH.sub("", _BEFORE_PATH.sub("", bare))) or "."

    def paths(self, text: str) -> list[str]:
        """The paths that words joined by commas and "and" mean."""
        return [self.path(each) for each in re.split(r" ?, ?(?:and )?| and ", text, flags=_FLAGS)]

    def glob(self, text: str) -> str:
        """The glob for names as people describe them; a bare word may occur anywhere in a name."""
        bare = _NAMED.sub("", _BEFORE_NAME.sub("", text.strip()))
        if re.fullmatch(r"files?|everything", bare, _FLAGS):
            return "*"
        if ending := re.fullmatch(r"files? (?:ending|that end) (?:in|with) (\S+)", bare, _FLAGS):
            return f"*{self.plain(ending[1])}"
        if kind := re.fullmatch(r"(\S+) files?", bare, _FLAGS):
            name = self.plain(kind[1])
            return _KINDS.get(name.lower(), f"*{name}" if name.startswith(".") else f"*{name}*")
        name = self.plain(bare)
        return name if is_glob(name) or "." in name else f"*{name}*"


def is_glob(path: str) -> bool:
    """Whether a path stands for any number of files."""
    return re.search(r"[*?\[{]", path) is not None


def looks_like_file(path: str) -> bool:
    """Whether a path looks like the name of one file."""
    return re.search(r"[^./]\.\w{1,8}$", path) is not None and not is_glob(path)
