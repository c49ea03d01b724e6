"""Reads a shell's program as the commands in it; pure. What cannot be read for certain is said to be so.

This is not a shell: it knows where commands begin and end, what is quoted, and what only the shell itself can
say (a variable, the output of a command, the names that fit a pattern), and finds rather too many commands
than too few.
"""

from __future__ import annotations

import re
from typing import NamedTuple

#: Stands for text that only the shell knows.
UNKNOWN = "\0"
_DEEPEST = 40
#: The end of a line that goes on in the next: to the shell there is nothing.
_CONTINUED = "\\\n"
_PLAIN = re.compile(r"[^\s\\'\"$`;&|()<>*?\[{]+")
_BLANKS = re.compile(r"(?:[ \t]|\\\n)+")
_PARAMETER = re.compile(r"[A-Za-z_]\w*|[0-9*@#?$!-]")
_PATTERN = "*?[{"
#: Words of such signs that mean themselves.
_BARE = re.compile(r"(?:\[\[?|\{\}?)(?=[ \t\n;&|()<>]|\Z)")
_END_OF_WORD = " \t\n;&|()<>"


class Word(NamedTuple):
    """One word. ``text`` has UNKNOWN for what only the shell knows; ``exact`` is None where there is any."""

    text: str
    exact: str | None


def _goes_on(line: str) -> bool:
    """Whether a line goes on in the next: the sign at its end is not itself escaped."""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


class _Pattern(str):
    """A sign that stands for names of files or for several words, where it is not quoted."""

    __slots__ = ()


def _made(parts: list[str]) -> Word:
    if any(part == "{" for part in parts if isinstance(part, _Pattern)):
        return Word(UNKNOWN, None)  # it may be several words
    shown: list[str] = []
    for part in parts:
        is_pattern = isinstance(part, _Pattern)
        shown.append(UNKNOWN if is_pattern else part)
        if is_pattern and part == "[":  # what follows says which characters may stand here
            break
    # Names of files begin as the word does: where that is plain, none of them is an option.
    begins_plainly = not (isinstance(parts[0], _Pattern) or parts[0].startswith("-")) if parts else True
    is_known = not any(UNKNOWN in part for part in parts)
    has_pattern = any(isinstance(part, _Pattern) for part in parts)
    exact = "".join(parts) if is_known and (begins_plainly or not has_pattern) else None
    return Word("".join(shown), exact)


class Simple(NamedTuple):
    """A command: its words, and what it would read as standard input: texts, and whether anything else."""

    words: tuple[Word, ...]
    inputs: tuple[str, ...] = ()
    reads_more: bool = False


class Program(NamedTuple):
    """The commands that a program may run. It is ``plain`` where it is one command without any operator,
    redirection or substitution; where it is not ``readable``, there may be any others.
    """

    commands: tuple[Simple, ...]
    plain: bool
    readable: bool


def read_program(text: str, depth: int = 0) -> Program:
    """The commands of a program."""
    reader = _Reader(text, depth)
    if UNKNOWN in text or depth > _DEEPEST:
        return Program((), plain=False, readable=False)
    reader.read()
    plain = reader.plain and len(reader.commands) == 1
    return Program(tuple(reader.commands), plain, reader.readable)


def read_substitutions(text: str) -> Program:
    """The commands whose output the shell would put into a text, as within double quotes."""
    reader = _Reader("", 0)
    reader._look_into(text)  # noqa: SLF001 - one module
    return Program(tuple(reader.commands), plain=False, readable=reader.readable)


class _Heredoc(NamedTuple):
    """A text that follows behind the line: the words that end it, and how it is to be read."""

    end: str
    strips_tabs: bool
    is_quoted: bool
    command: int


class _Unreadable(Exception):  # noqa: N818 - no error: what is to be read ends here
    """What follows cannot be read."""


class _Reader:
    """Goes through a program once, from left to right."""

    def __init__(self, text: str, depth: int) -> None:
        self._text = text
        self._at = 0
        self._depth = depth
        self.commands: list[Simple] = []
        self.plain = True
        self.readable = True
        self._words: list[Word] = []
        self._inputs: list[str] = []
        self._reads_more = False
        self._heredocs: list[_Heredoc] = []
        #: How many ``(`` are open.
        self._open = 0
        #: Whether there was a ``((``, behind which ``<<`` is perhaps no text that follows.
        self._in_sum = False
        #: Whether it ends where its last ``(`` is closed.
        self._is_inner = False

    def read(self) -> None:
        """Read all of it."""
        try:
            self._read_commands("")
        except _Unreadable:
            self.readable = self.plain = False
        self._end_command()
        if self._heredocs:
            self.readable = False

    # -- commands --------------------------------------------------------------------------------

    def _read_commands(self, until: str) -> None:
        """Read on to the sign ``until``, or to the end where that is empty."""
        while self._at < len(self._text):
            if blanks := _BLANKS.match(self._text, self._at):
                self._at = blanks.end()
                continue
            sign = self._text[self._at]
            if sign == until and not self._open:
                return
            if sign == "#":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            elif sign == "\n":
                self._at += 1
                self._end_command()
                self._read_heredocs()
            elif sign in "<>" or self._text.startswith("&>", self._at):
                self._redirect()
            elif sign in ";&|()":
                self._separate(sign)
            else:
                self._take_word()
        if until:
            raise _Unreadable

    def _separate(self, sign: str) -> None:
        self.plain = False
        self._at += 1
        is_pipe = sign == "|" and not self._text.startswith("|", self._at)
        if sign == "(":
            self._open += 1
            self._in_sum = self._in_sum or self._text.startswith("(", self._at)
        elif sign == ")":
            self._open = max(0, self._open - 1)
        self._end_command()
        self._reads_more = is_pipe

    def _end_command(self) -> None:
        if self._words:
            self.commands.append(Simple(tuple(self._words), tuple(self._inputs), self._reads_more))
        self._words, self._inputs, self._reads_more = [], [], False

    def _take_word(self) -> None:
        begin = self._at
        word = self._word()
        if self._written(begin).isdigit() and self._text.startswith(("<", ">"), self._at):
            return  # the number of a descriptor
        if word.exact == "case" and self._is_inner:  # its signs ``)`` close nothing
            raise _Unreadable
        self._words.append(word)

    # -- redirections ----------------------------------------------------------------------------

    def _redirect(self) -> None:
        self.plain = False
        found = re.compile(r"&>>?|<<<|<<-?|<>|<&|>>|>&|>\||[<>]").match(self._text, self._at)
        assert found is not None
        sign = found[0]
        if sign in "<>" and self._text.startswith("(", found.end()):
            self._words.append(self._word())  # a command whose output is a file
            return
        self._at = found.end()
        self._skip_blanks()
        if sign in {"<<", "<<-"}:
            if self._in_sum:
                raise _Unreadable
            self._begin_heredoc(strips_tabs=sign == "<<-")
            return
        begin = self._at
        target = self._word()
        if self._at == begin:
            raise _Unreadable
        if sign == "<<<":
            self._inputs.append(target.text)
        elif "<" in sign:
            self._reads_more = True

    def _begin_heredoc(self, *, strips_tabs: bool) -> None:
        begin = self._at
        end = self._word()
        written = self._written(begin)
        if end.exact is None or not written:
            raise _Unreadable
        is_quoted = any(sign in written for sign in "\\'\"")
        self._heredocs.append(_Heredoc(end.exact, strips_tabs, is_quoted, len(self.commands)))

    def _written(self, begin: int) -> str:
        """What stands between ``begin`` and here, in one line."""
        return self._text[begin : self._at].replace(_CONTINUED, "")

    def _read_heredocs(self) -> None:
        heredocs, self._heredocs = self._heredocs, []
        for each in heredocs:
            body = self._body(each)
            if not each.is_quoted:
                self._look_into(body)
            if each.command < len(self.commands):
                of = self.commands[each.command]
                self.commands[each.command] = of._replace(inputs=(*of.inputs, body))

    def _body(self, heredoc: _Heredoc) -> str:
        lines: list[str] = []
        while self._at < len(self._text):
            line = self._line()
            while not heredoc.is_quoted and _goes_on(line) and self._at < len(self._text):
                line = line[:-1] + self._line()
            if heredoc.strips_tabs:
                line = line.lstrip("\t")
            if line == heredoc.end:
                return "\n".join(lines)
            lines.append(line)
        raise _Unreadable

    def _line(self) -> str:
        end = self._text.find("\n", self._at)
        end = len(self._text) if end < 0 else end
        line = self._text[self._at : end]
        self._at = end + 1
        return line

    def _look_into(self, body: str) -> None:
        """Find the commands in a text in which the shell puts their output."""
        inner = _Reader(body, self._depth + 1)
        try:
            inner._read_quoted("")
        except _Unreadable:
            self.readable = False
        self._take_over(inner)

    # -- words -----------------------------------------------------------------------------------

    def _skip_blanks(self) -> None:
        if blanks := _BLANKS.match(self._text, self._at):
            self._at = blanks.end()

    def _word(self) -> Word:
        """The word that begins here."""
        parts: list[str] = []
        begin = self._at
        while self._at < len(self._text):
            if plain := _PLAIN.match(self._text, self._at):
                parts.append(plain[0])
                self._at = plain.end()
                continue
            sign = self._text[self._at]
            if sign in _END_OF_WORD:
                if self._at > begin or sign not in "<>":
                    break
                if not self._text.startswith("(", self._at + 1):
                    raise _Unreadable
                self._at += 2  # a command whose output is a file
                self._substitute()
                parts.append(UNKNOWN)
            elif sign in _PATTERN:
                bare = _BARE.match(self._text, self._at) if self._at == begin else None
                if bare is None:
                    parts.append(_Pattern(sign))
                    self._at += 1
                else:
                    parts.append(bare[0])
                    self._at = bare.end()
            else:
                parts.append(self._special(sign))
        if any(part == "[" for part in parts if isinstance(part, _Pattern)):
            self._look_into_subscript("".join(part for part in parts if part != UNKNOWN))
        return _made(parts)

    def _look_into_subscript(self, text: str) -> None:
        """Find the commands in a subscript: the shell expands it once more, whatever is quoted in it."""
        if "$(" in text or "`" in text:
            self._look_into(text)

    def _special(self, sign: str) -> str:
        """What stands for what begins with a sign that quotes or substitutes."""
        self._at += 1
        if sign == "\\":
            escaped = self._text[self._at : self._at + 1]
            self._at += 1
            return "" if escaped == "\n" else escaped or sign
        if sign == "'":
            return self._up_to("'")
        if sign == '"':
            return self._read_quoted('"')
        if sign == "`":
            return self._backticks()
        if sign == "$":
            return self._dollar(in_quotes=False)
        return sign  # white space that is none to a shell

    def _up_to(self, sign: str) -> str:
        end = self._text.find(sign, self._at)
        if end < 0:
            raise _Unreadable
        text = self._text[self._at : end]
        self._at = end + 1
        return text

    def _read_quoted(self, until: str) -> str:
        """Read the text up to the closing quote ``until``, or all of it where that is empty."""
        parts: list[str] = []
        while self._at < len(self._text):
            sign = self._text[self._at]
            self._at += 1
            if sign == until:
                return "".join(parts)
            if sign == "\\" and self._text[self._at : self._at + 1] in {"$", "`", '"', "\\", "\n"}:
                parts.append(self._text[self._at].strip("\n"))
                self._at += 1
            elif sign == "`":
                parts.append(self._backticks())
            elif sign == "$":
                parts.append(self._dollar(in_quotes=True))
            else:
                parts.append(sign)
        if until:
            raise _Unreadable
        return "".join(parts)

    def _dollar(self, *, in_quotes: bool) -> str:
        while self._text.startswith(_CONTINUED, self._at):
            self._at += len(_CONTINUED)
        following = self._text[self._at : self._at + 1]
        if following == "(":
            self._at += 1
            self._substitute()
            return UNKNOWN
        if following == "{":
            self._at += 1
            self._in_braces(in_quotes=in_quotes)
            return UNKNOWN
        if following == "[":  # an old way to write a sum
            raise _Unreadable
        if following == "'" and not in_quotes:
            return self._with_escapes()
        if following == '"' and not in_quotes:
            self._at += 1
            return self._read_quoted('"')
        if parameter := _PARAMETER.match(self._text, self._at):
            self._at = parameter.end()
            return UNKNOWN
        return "$"

    def _with_escapes(self) -> str:
        """The text of ``$'…'``; what is written with escapes is not looked at."""
        found = re.compile(r"'((?:[^'\\]|\\.)*)'", re.DOTALL).match(self._text, self._at)
        if found is None:
            raise _Unreadable
        self._at = found.end()
        return UNKNOWN if "\\" in found[1] else found[1]

    def _substitute(self) -> None:
        """Read the commands behind ``$(``, and the closing sign."""
        self.plain = False
        if self._depth >= _DEEPEST:
            raise _Unreadable
        inner = _Reader(self._text, self._depth + 1)
        inner._at = self._at
        inner._in_sum = self._in_sum or self._text.startswith("(", self._at)
        inner._is_inner = True
        try:
            inner._read_commands(")")
            if inner._heredocs:
                raise _Unreadable
        finally:
            inner._end_command()
            self._take_over(inner)
        self._at = inner._at + 1

    def _in_braces(self, *, in_quotes: bool) -> None:
        """Read ``${…}`` up to its end."""
        self.plain = False
        while self._at < len(self._text):
            sign = self._text[self._at]
            self._at += 1
            if sign == "}":
                return
            if sign == "\\":
                self._at += 1
            elif sign == "'":
                if in_quotes:  # there it quotes in some places, and not in others
                    raise _Unreadable
                self._up_to("'")
            elif sign == '"':
                self._read_quoted('"')
            elif sign == "`":
                self._backticks()
            elif sign == "$":
                self._dollar(in_quotes=in_quotes)
        raise _Unreadable

    def _backticks(self) -> str:
        found = re.compile(r"((?:[^`\\]|\\.)*)`", re.DOTALL).match(self._text, self._at)
        self.plain = False
        if found is None or self._depth >= _DEEPEST:
            raise _Unreadable
        self._at = found.end()
        inner = _Reader(re.sub(r"\\([$`\\])", r"\1", found[1]), self._depth + 1)
        inner.read()
        self._take_over(inner)
        return UNKNOWN

    def _take_over(self, inner: _Reader) -> None:
        self.commands += inner.commands
        self.plain = False
        self.readable = self.readable and inner.readable
