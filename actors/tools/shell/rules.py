"""What approval rules ask of a command: whether a pattern means it, or perhaps some command in it; pure.

Kept parsers were looked at: bashlex is GPL and at rest, tree-sitter-bash goes on behind what it could not
read without saying what that may run, shlex knows no operators.
"""

from __future__ import annotations

import functools
import posixpath
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from actors.tools.shell import wrappers
from actors.tools.shell.parser import (
    UNKNOWN,
    Program,
    Simple,
    Word,
    read_program,
    read_substitutions,
)
from protocol.approval import fits

#: What runs programs that it is given as words, or reads.
_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "mksh", "ash", "fish", "rbash"})
#: What is looked into also behind other words; of what else runs others all words are looked at already.
_LOOKED_INTO = _SHELLS | {"eval", *wrappers.FILLS, *wrappers.STARTERS, *wrappers.TYPES}
_LOOKED_INTO |= {*wrappers.RUNNERS, *wrappers.RUNS_INPUT}
_RESERVED = frozenset(
    {
        *("!", "{", "}", "if", "then", "elif", "else", "fi", "do", "done", "while", "until", "esac"),
        *("function", "time", "coproc"),
    }
)
#: Of these, those behind which a name may stand, or an option, before the command.
_BEFORE_A_NAME = frozenset({"function", "coproc", "time"})
#: Begins what are words, and no command.
_NO_COMMANDS = frozenset({"[[", "for", "select", "case"})
#: What takes words for names of variables, or for numbers.
_EVALUATES = frozenset(
    {
        *("test", "[", "[[", "printf", "read", "let", "declare", "typeset", "local", "export", "readonly"),
        *("unset", "wait", "getopts", "mapfile", "readarray", "return", "exit", "shift", "break", "continue"),
    }
)
#: What changes the meaning of words to come, or runs what nobody sees here.
_CHANGES_MEANING = frozenset({"alias", "hash", "enable", "complete", "compgen", "mapfile", "readarray"})
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*(?:\[.*\])?\+?=", re.DOTALL)
_DEEPEST = 6
#: Words of a command, and those behind which others are looked for; what has more may run anything.
_MOST, _MOST_WORDS = 5000, 100
#: Characters that are held against a pattern where only the shell knows some of them.
_MOST_CHARACTERS = 10_000


class Runs:
    """What a program of a shell may run, as far as that can be read."""

    def __init__(self, text: str) -> None:
        self._written = text
        self._texts: dict[str, None] = {}
        #: The words behind others that were looked at.
        self._seen_behind: set[tuple[str, ...]] = set()
        #: Whether it may run what cannot be read here.
        self._hides = False
        program = read_program(text)
        self._exact = _exact(program)
        self._add_program(program, 0)

    def certainly(self, pattern: str) -> bool:
        """Whether it is one plain command, and the pattern fits that."""
        if self._exact is None or not fits(pattern, self._exact):
            return False
        name, *rest = self._exact.split()
        starters = wrappers.STARTERS.get(posixpath.basename(name), frozenset()).intersection(rest)
        return starters <= set(pattern.split())

    def perhaps(self, pattern: str) -> bool:
        """Whether the pattern fits all of it, or any command in it, as far as is known."""
        return (
            self._hides or fits(pattern, self._written) or any(may_fit(pattern, text) for text in self._texts)
        )

    def _add_program(self, program: Program, depth: int) -> None:
        self._hides = self._hides or not program.readable
        for each in program.commands:
            self._hides = self._hides or len(each.words) > _MOST
            if self._hides:
                return
            self._add_command(each, depth)

    def _add_text(self, text: str, depth: int) -> None:
        if UNKNOWN in text or depth >= _DEEPEST:
            self._hides = True
        else:
            self._add_program(read_program(text), depth + 1)

    def _add_command(self, command: Simple, depth: int) -> None:
        words = list(command.words)
        self._add_subscripts(words, command)
        while words and (words[0].text in _RESERVED or _ASSIGNMENT.match(words[0].text)):
            self._add_words(words)
            word = words.pop(0).text
            if word in _BEFORE_A_NAME and len(words) > 1:
                self._add_command(command._replace(words=tuple(words[1:])), depth)
            elif _ASSIGNMENT.match(word):
                self._add_value(word.partition("=")[2], depth)
        if words and words[0].text not in _NO_COMMANDS:
            self._add_words(words)
            self._look_inside(words, command, depth)

    def _look_inside(self, words: list[Word], command: Simple, depth: int) -> None:
        """Add what a command runs that it is given."""
        name = posixpath.basename(words[0].text)
        texts = [word.text for word in words[1:]]
        if name == "eval":
            self._add_text(" ".join(texts), depth)
        elif name == "trap":
            for each in texts[:1]:
                self._add_text(each, depth)
        elif name in _SHELLS:
            self._add_shell(texts, command, depth)
        elif name in {"source", "."}:
            self._add_file(texts, command, depth)
        elif name in _CHANGES_MEANING or any("alias." in each for each in texts):
            self._hides = True
        else:
            self._add_wrapped(name, words, command, depth)

    def _add_wrapped(self, name: str, words: list[Word], command: Simple, depth: int) -> None:
        """Add what a program runs that is known to run others."""
        texts = [word.text for word in words[1:]]
        types, runs = wrappers.TYPES.get(name), wrappers.RUNNERS.get(name)
        if types is not None and any(each.startswith(types) for each in texts):
            self._hides = True
        elif name in wrappers.STARTERS:
            starts = [at + 2 for at, each in enumerate(texts) if each in wrappers.STARTERS[name]]
            self._add_all_behind(_filled(words), starts, command, depth)
        elif name in wrappers.FILLS:
            words = [*_filled(words), Word(UNKNOWN, None)]
            self._add_all_behind(words, _first_words(texts), command, depth)
        elif name in wrappers.PREFIXES or UNKNOWN in name or (runs and not runs.isdisjoint(texts)):
            self._add_all_behind(words, range(1, len(words)), command, depth)
        if name in wrappers.RUNS_INPUT:
            self._add_input(command, depth)
        for option, setting in pairwise(texts if name == "git" else ()):
            key, _, value = setting.partition("=")
            if option == "-c" and not key.startswith(wrappers.NO_PROGRAMS):
                self._add_value(value.removeprefix("!"), depth)

    def _add_all_behind(self, words: list[Word], starts: Iterable[int], command: Simple, depth: int) -> None:
        """Add the commands that begin at these of the words of another, which perhaps runs them."""
        self._hides = self._hides or len(words) > _MOST_WORDS
        for at in () if self._hides else starts:
            if at < len(words):
                self._add_behind(words[at:], command, depth)

    def _add_behind(self, words: list[Word], command: Simple, depth: int) -> None:
        """Add words that another command perhaps runs."""
        key = tuple(word.text for word in words)
        if key in self._seen_behind:
            return
        self._seen_behind.add(key)
        self._add_words(words)
        text = words[0].text
        if posixpath.basename(text) in _LOOKED_INTO:
            self._look_inside(words, command, depth)
            return
        self._add_value(text, depth)
        if text.startswith("-"):  # the program of an option may stand right behind it
            self._add_value(text.partition("=")[2], depth)
            self._add_value(re.sub(r"^-\w", "", text), depth)
            self._add_value(re.sub(r"^-\w+?(?=S)S", "", text), depth)

    def _add_subscripts(self, words: list[Word], command: Simple) -> None:
        """Add the commands in texts that the shell expands, quoted or not, as the subscript of an array:
        where it takes them for a name or for a number.
        """
        evaluates = any(posixpath.basename(word.text) in _EVALUATES for word in words)
        texts = [word.text for word in words if evaluates or _ASSIGNMENT.match(word.text)]
        for text in (*texts, *command.inputs):
            if "[" in text and ("$(" in text or "`" in text):
                self._add_program(read_substitutions(text.replace(UNKNOWN, "x")), 0)

    def _add_value(self, text: str, depth: int) -> None:
        """Add a word that is perhaps a program: the shell, or what it starts, runs some variables."""
        if re.search(r"[\s`]|\$\(", text):
            self._texts[text] = None
            if UNKNOWN not in text:
                self._add_text(text, depth)

    def _add_shell(self, texts: list[str], command: Simple, depth: int) -> None:
        given = [each for each in texts if not each.startswith(("-", "+"))]
        if any(each.startswith("-") and "c" in each and not each.startswith("--") for each in texts):
            for each in given:
                self._add_text(each, depth)
        elif not given or any(each.startswith("-") and "s" in each for each in texts):
            self._add_input(command, depth)
        else:
            self._add_file(given, command, depth)

    def _add_file(self, texts: list[str], command: Simple, depth: int) -> None:
        """Add what a shell reads from a file, where that is its own input, or one that only it knows."""
        file = texts[0] if texts else ""
        self._hides = self._hides or UNKNOWN in file
        if file.startswith(("/dev/", "/proc/")):
            self._add_input(command, depth)

    def _add_input(self, command: Simple, depth: int) -> None:
        for each in command.inputs:
            self._add_text(each, depth)
        self._hides = self._hides or command.reads_more

    def _add_words(self, words: list[Word]) -> None:
        """Add a command, also with its program's bare name, and without the options before its first word."""
        program, *rest = [word.text for word in words]
        for name in {program, posixpath.basename(program)}:
            self._texts[_joined([name, *rest])] = None
            had_option = False
            for at, each in enumerate(rest):
                if at >= _MOST_WORDS:
                    self._hides = True
                    break
                is_option = each.startswith(("-", UNKNOWN))
                if not is_option and not had_option:
                    break
                had_option = is_option
                self._texts[_joined([name, *rest[at + 1 :]])] = None


@functools.lru_cache(maxsize=16)
def runs_of(text: str) -> Runs:
    """What a program may run."""
    return Runs(text)


def programs_in(tool: str, arguments: Mapping[str, Any]) -> dict[str, Runs]:
    """The arguments of a call that are programs of a shell."""
    command = arguments.get("command") if tool == "shell" else None
    return {"command": runs_of(command)} if isinstance(command, str) else {}


def may_fit(pattern: str, text: str) -> bool:
    """Whether a pattern fits a text in which UNKNOWN may be any text."""
    if UNKNOWN not in text:
        return fits(pattern, text)
    if len(text) > _MOST_CHARACTERS:
        return True
    # The places in the pattern that may have been reached; any text reaches all places behind them.
    end = len(pattern)
    places = _behind({0}, pattern)
    for sign in text:
        if sign == UNKNOWN:
            places = set(range(min(places), end + 1))
            continue
        stayed = {at for at in places if at < end and pattern[at] == "*"}
        went = {at + 1 for at in places if at < end and pattern[at] in {"?", sign}}
        places = _behind(stayed | went, pattern)
        if not places:
            return False
    return end in places


def _behind(places: set[int], pattern: str) -> set[int]:
    """These places, and those behind a ``*`` that matches nothing."""
    for place in sorted(places):
        behind = place
        while behind < len(pattern) and pattern[behind] == "*":
            behind += 1
            places.add(behind)
    return places


def _joined(texts: list[str]) -> str:
    """The words with a blank between them; a word that only the shell knows may be none, or several."""
    text = " ".join(texts)
    return re.sub(rf"(?: ?{UNKNOWN} ?(?=[{UNKNOWN} ]|\Z)|(?<![^ {UNKNOWN}]){UNKNOWN} )+", UNKNOWN, text)


def _filled(words: list[Word]) -> list[Word]:
    """The words of a command with UNKNOWN for what it puts in the place of marks."""
    texts = [word.text for word in words]
    named = [found[1] for each in texts if (found := wrappers.NAMES_MARK.match(each)) and found[1]]
    named += [behind for each, behind in pairwise(texts) if wrappers.MARK_FOLLOWS.match(each)]
    filled = [wrappers.MARKS.sub(UNKNOWN, each) for each in texts]
    for mark in named:
        filled = [each.replace(mark, UNKNOWN) for each in filled]
    return [word if word.text == text else Word(text, None) for word, text in zip(words, filled, strict=True)]


def _first_words(texts: list[str]) -> list[int]:
    """Where the first word behind the options of a command may stand: an option may have a value."""
    starts: list[int] = []
    has_value = is_mark = False
    for at, each in enumerate(texts, 1):
        if each.startswith("-"):
            is_mark = wrappers.MARK_FOLLOWS.match(each) is not None
            has_value = wrappers.VALUE_FOLLOWS.match(each) is not None
            continue
        if not is_mark:
            starts.append(at)
        if not (has_value or is_mark):
            return starts
        has_value = is_mark = False
    return [*starts, len(texts) + 1]  # what it reads


def _exact(program: Program) -> str | None:
    """The one plain command, None where it is none, or has a word that the shell may expand once more."""
    if not (program.plain and program.readable):
        return None
    words = [word.exact for word in program.commands[0].words]
    if not words or words[0] is None or _ASSIGNMENT.match(words[0]) or re.search(r"\s", words[0]):
        return None
    if any(each is None or ("[" in each and ("$" in each or "`" in each)) for each in words):
        return None
    return " ".join(each or "" for each in words)
