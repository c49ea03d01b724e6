"""The sentence patterns that the offline model understands, and the intents they stand for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from actors.llm.offline.file_names import Quoted, is_glob, looks_like_file
from actors.llm.offline.intents import (
    Count,
    Find,
    Intent,
    List,
    Read,
    Recall,
    Remember,
    Replace,
    Run,
    Search,
    Summarise,
    SummariseText,
    Talk,
    Topic,
    Write,
)

Parts = Mapping[str, str]
Maker = Callable[[Parts, Quoted], list[Intent]]


def intents_of(sentence: str, quoted: Quoted) -> list[Intent] | None:
    """The intents of one plain sentence, by the first rule that matches all of it."""
    for pattern, make in RULES:
        found = pattern.fullmatch(sentence)
        if found is not None:
            return make({name: text or "" for name, text in found.groupdict().items()}, quoted)
    return None


def sentence(form: str) -> re.Pattern[str]:
    """A sentence form, in the notation used below, as a pattern.

    ``(a|b)`` is either; ``[a] `` is optional together with the blank after it, ``[ a]`` with the one before;
    ``<name>`` is any words (as few as possible), ``<name:a|b>`` one of these.
    """
    form = re.sub(r"\((?!\?)", "(?:", form)
    form = re.sub(r"\[ ([^\[\]]*)\]", r"(?: \1)?", form)
    form = re.sub(r"\[([^\[\]]*)\] ", r"(?:(?:\1) )?", form)
    form = re.sub(r"<(\w+)>", r"(?P<\1>.+?)", form)
    form = re.sub(r"<(\w+):([^<>]*)>", r"(?P<\1>\2)", form)
    return re.compile(form, re.IGNORECASE)


def _talk(about: Topic) -> Maker:
    return lambda _parts, _quoted: [Talk(about)]


def _recall(parts: Parts, quoted: Quoted) -> list[Intent]:
    return [Recall(quoted.plain(parts.get("about", "")) or None)]


def _remember(parts: Parts, quoted: Quoted) -> list[Intent]:
    return [Remember(quoted.plain(parts["fact"]))]


def _replace(parts: Parts, quoted: Quoted) -> list[Intent]:
    return [Replace(quoted.path(parts["path"]), quoted.plain(parts["old"]), quoted.plain(parts["new"]))]


def _run(parts: Parts, quoted: Quoted) -> list[Intent]:
    return [Run(quoted.plain(parts["command"]))]


def _summarise(parts: Parts, quoted: Quoted) -> list[Intent]:
    done: list[Intent] = [Summarise(each) for each in quoted.paths(parts["path"])]
    return [*done, Write(quoted.path(parts["target"]), None)] if "target" in parts else done


def _summarise_talk(_parts: Parts, _quoted: Quoted) -> list[Intent]:
    return [SummariseText()]


def _write(parts: Parts, quoted: Quoted) -> list[Intent]:
    path = re.sub(
        r"^(?:(?:a|the) )?(?:new )?file (?:(?:called|named) )?", "", parts["path"], flags=re.IGNORECASE
    )
    text = quoted.plain(re.sub(r"^the (?:text|words?|line) ", "", parts["content"], flags=re.IGNORECASE))
    return [Write(quoted.path(path), text, append="append" in parts)]


def _write_it(parts: Parts, quoted: Quoted) -> list[Intent]:
    return [Write(quoted.path(parts["path"]), None, append="append" in parts)]


def _count(parts: Parts, quoted: Quoted) -> list[Intent]:
    first = parts.get("unit", "words")[0].lower()
    unit = {"l": "lines", "b": "bytes", "c": "bytes"}.get(first, "words")
    return [Count(each, unit) for each in quoted.paths(parts["path"])]  # type: ignore[arg-type]


def _search(parts: Parts, quoted: Quoted) -> list[Intent]:
    text = quoted.plain(parts["text"])
    return [Search(text, quoted.path(parts.get("path", "")), "grep" in parts and _is_regex(text))]


def _find(parts: Parts, quoted: Quoted) -> list[Intent]:
    """``find Y in X``: in a file this means a text, elsewhere a name."""
    path, words = quoted.path(parts.get("path", "")), quoted.plain(parts["what"])
    if looks_like_file(path) and not is_glob(words):
        return [Search(words, path)]
    return [Find(quoted.glob(parts["what"]), path, words)]


def _list(parts: Parts, quoted: Quoted) -> list[Intent]:
    return [List(quoted.path(parts.get("path", "")))]


def _contents(parts: Parts, quoted: Quoted) -> list[Intent]:
    path = quoted.path(parts["path"])
    return [Read(path) if looks_like_file(path) else List(path)]


def _read(parts: Parts, quoted: Quoted) -> list[Intent]:
    lines = int(parts["lines"]) if "lines" in parts else None
    return [Read(each, lines) for each in quoted.paths(parts["path"])]


def _is_regex(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def _rules(make: Maker, *forms: str) -> Iterable[tuple[re.Pattern[str], Maker]]:
    return [(sentence(form), make) for form in forms]


_IN = "[ (in|inside|within|under|below|of|from|at) <path>]"
_UNDER = "[ (in|inside|within|under|below) <path>]"
_THERE_IN = f"[ are][ there]{_UNDER}"
_ENTRIES = (
    "(files?|contents?|entries|everything|directory|directories|folders?)[ and (files|folders|directories)]"
)
_LINES = "(lines?|places?|occurrences?|mentions?)"
_WITH = "(with|of|containing|mentioning|matching|where|that (contain|mention|say))"
_A_SUMMARY = "[write|give|make|create] [me] (a|the) [short|brief] summary of"

_UNIT = "<unit:words?|lines?|bytes?|characters?>"
_IT = "(it|that|this|them|the (result|results|answer|summary|list|listing|text|output|count)|what you found)"

#: The first matching rule counts, so special ones come before general ones.
RULES: tuple[tuple[re.Pattern[str], Maker], ...] = (
    *_rules(
        _talk("self"),
        "(who|what) are you[ <more>]",
        "what (can|do) you (do|understand)[ <more>]",
        "help[ me]",
        "what is polypod",
        "(what|which) model <more>",
        "are you [an|a] [real|large|language] (ai|llm|model|human|person|bot)[ <more>]",
    ),
    *_rules(_talk("hello"), "(hello|hi|hey|good (morning|day|afternoon|evening))[ there]"),
    *_rules(_talk("thanks"), "(thanks|thank you)[ <more>]"),
    *_rules(_talk("continue"), "(continue|go on|carry on|resume|proceed|keep going)"),
    *_rules(
        _recall,
        "what did (i|we) (tell|ask) you[ to remember][ about <about>]",
        "what('s| is) in your (memory|notes)",
        "(what do you (remember|know)|do you remember)[ about][ <about>]",
        "recall[ <about>]",
    ),
    *_rules(
        _remember,
        "(remember|memori(s|z)e|keep in mind|note down|note|don'?t forget|make a note):? [that|to|of]"
        " <fact:(?!(that|it|this)$).+>",
    ),
    *_rules(_run, "(run|execute) [the|this] [shell] [command:?] <command>"),
    *_rules(_replace, "(replace|change) <old> (with|by|to|into) <new> in <path>"),
    *_rules(
        _summarise_talk,
        "(summari(s|z)e|sum up|tl;?dr)",
        "(summari(s|z)e|sum up) (everything|it all|what we <more>)",
        "(summari(s|z)e|sum up) (this|our|the) (conversation|chat|session|discussion)[ so far]",
        f"{_A_SUMMARY} (this|our|the) (conversation|chat|session|discussion)[ so far]",
    ),
    *_rules(
        _summarise,
        "(write|save|put) (a|the) [short|brief] summary of <path> (to|into|in) <target:\\S+>",
        "(summari(s|z)e|sum up) <path> (to|into) <target:\\S+>",
        "(summari(s|z)e|sum up|tl;?dr of|tl;?dr) <path>",
        f"{_A_SUMMARY} <path>",
    ),
    *_rules(
        _write,
        "(create|make|write) [a|the] [new] [text] file [called|named] <path:\\S+>"
        " (with|containing|that says|saying) [the] [contents?:?|text:?|words?:?] <content>",
    ),
    *_rules(
        _write_it,
        f"<append:append|add> {_IT} to <path>",
        f"(write|save|put|store) {_IT} (to|into|in|as) <path>",
    ),
    *_rules(
        _write,
        "<append:append|add> <content:.+> to <path>",
        "(write|save|put|store) <content:.+> (to|into|in|as) <path>",
    ),
    *_rules(
        _count,
        f"(count|give|get) [me] [all] [the] [number of] {_UNIT} [there are] (in|of) <path>",
        f"how many {_UNIT} [are|does|do|has|have] [there] [in] <path>[ (has|have|contains?|hold)]",
        "[the] <unit:word|line> ?counts? (of|for|in) <path>",
        "how (long|big|large) (is|are) <path>",
    ),
    *_rules(
        _search,
        "search <path:\\S+> for <text>",
        "(which|what) files (contain|mention|have|say|use) <text>[ in <path>]",
        f"(find|show|list|search for) [me] [all] [the] {_LINES} {_WITH} <text>{_UNDER}",
        f"(find|show|list|search for) [me] [all] [the] (words?|text|string) <text>{_UNDER}",
        f"(search for|search|look for text) <text>{_UNDER}",
        f"<grep:grep for|grep> <text>{_UNDER}",
    ),
    *_rules(_find, f"how many <what:(?:\\S+ )?files>{_THERE_IN}"),
    *_rules(
        _list,
        f"(list|show|display) [me] [all] [of] [the] {_ENTRIES}{_IN}",
        f"(what|which) files (are|do (we|you|i) have){_THERE_IN}",
        "what files[ in <path>]",
        "what('s| is) here",
        "ls[ <path>]",
    ),
    *_rules(
        _find,
        f"(list|show me|show|find) <what:(?:all )?(?:the )?\\S+ files>{_IN}",
        f"(list|show|find) [me] [all] [the] <what:files? (?:ending|that end) (?:in|with) \\S+>{_UNDER}",
        f"(find|locate|look for|where (is|are)) <what>{_UNDER}",
    ),
    *_rules(_contents, "what('s| is) [there] in <path>", "what does <path> (say|contain|hold)"),
    *_rules(
        _read,
        "(read|show|print|display) [me] [the] first <lines:\\d{1,4}> lines of <path>",
    ),
    *_rules(_list, "list <path:\\S+>"),
    *_rules(_read, "(read|show|open|print|cat|display|give) [me] <path>"),
)
