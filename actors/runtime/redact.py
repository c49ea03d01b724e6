"""Redacts secrets in text and data before these are persisted or shown.

The one redactor: for logs, memory and cassettes. What was cleaned once stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

#: What stands in a secret's place.
REDACTED = "[redacted]"

#: Takes secrets out of a text.
Redact = Callable[[str], str]

#: Beginnings by which vendors mark their keys and tokens, each with as much as makes it one.
_MARKED = (
    r"sk-[\w-]{8,}",
    r"[rs]k_(?:live|test)_\w{12,}",
    r"(?:AKIA|ASIA)[A-Z0-9]{16}",
    r"AIza[\w-]{30,}",
    r"gh[oprsu]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}",
    r"xox[a-z]-[\w-]{10,}",
    r"(?:hf|gsk|npm)_\w{20,}|pypi-[\w-]{30,}|xai-\w{20,}",
    r"eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*",
)
#: Ends of the names of fields, headers and variables that hold secrets, also where they stand in a text.
_NAMES = (
    r"(?:api[_-]?key|secret(?:[_-]?(?:access[_-]?)?key)?|access[_-]?key|passw(?:or)?d|passphrase"
    r"|private[_-]?key|(?:access|auth|refresh|bearer|session|security)[_-]?token|authorization|credentials?)"
)
#: Keys whose values are secrets whatever they look like: ``api_key``, ``X-Api-Key``, ``refresh_token``;
#: not ``api_key_env``, which names a variable, and not ``max_tokens``.
_SECRET_KEY = rf"(?:.*[\W_])?(?:token|cookie|{_NAMES})|[\w-]*{_NAMES}"
#: Of a value that was not cleaned already.
_NEW = r"(?!\[redacted)"
#: Between a name and its value, also in JSON within JSON.
_IS = r"\b\\?[\"']?\s*[:=]\s*\\?"
_SCHEME = r"(?:(?:bearer|basic|digest|token)\s+)"

#: Each with words of which one is in every text that it finds something in: most texts have none of them.
_NAMED = ("key", "secret", "pass", "token", "authorization", "credential")
_PATTERNS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("-----",),
        r"(?P<keep>)-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*-----|\Z)",
    ),
    (("://",), rf"(?P<keep>://[^\s:/@]*:){_NEW}[^\s/]+(?=@)"),
    (("://",), r"(?P<keep>://)[^\s:/@\[]{20,}(?=@)"),
    ((), rf"(?P<keep>)(?<![\w-])(?:{'|'.join(_MARKED)})(?![\w-])"),
    # ``authorization: Bearer …``, then the same without the name: of that only what looks like no word
    (
        ("authorization",),
        rf"(?P<keep>(?i:\bauthorization\b\\?[\"']?\s*[=:]\s*\\?[\"']?{_SCHEME}?+)){_NEW}[^\s\"',;\\]{{6,}}",
    ),
    (
        ("bearer", "basic", "token"),
        r"(?P<keep>\b(?i:bearer|basic|token)\s+)(?=\S*?(?:[0-9=+/]|[a-z][A-Z]))[\w.~+/=-]{12,}",
    ),
    # ``?key=…`` and ``&X-Amz-Signature=…``, as long as they are
    (
        ("=",),
        rf"(?P<keep>[?&](?i:(?:[\w-]*[_-])?(?:token|key|sig|signature|auth|{_NAMES})=)){_NEW}[^\s&#\"']+",
    ),
    # ``name = "a phrase"``, and ``name: word``
    (_NAMED, rf"(?P<keep>(?i:(?<![\w-])[\w-]*{_NAMES}{_IS})\"){_NEW}[^\"\\\n]{{4,}}(?=\\?\")"),
    (_NAMED, rf"(?P<keep>(?i:(?<![\w-])[\w-]*{_NAMES}{_IS})'){_NEW}[^'\n]{{4,}}(?=')"),
    (
        _NAMED,
        rf"(?P<keep>(?i:(?<![\w-])[\w-]*{_NAMES}{_IS}[\"']?(?!{_SCHEME}))){_NEW}[^\s\"',;\\\[]{{6,}}",
    ),
    (("token",), rf"(?P<keep>(?i:(?<![\w-])[\w-]*token{_IS}[\"']?)){_NEW}(?=\S*\d)[^\s\"',;\\\[]{{8,}}"),
)


#: Keys under which a JSON Schema lists shapes by name: there a name says nothing of a value.
_SHAPES = frozenset({"properties", "$defs", "definitions"})
#: Data nested deeper than this is looked at as the text it is shown as.
_DEPTH = 64


# Compiled when they are first needed: that takes as long as a tenth of the import of all the rest.


@cache
def _compiled() -> tuple[tuple[tuple[str, ...], re.Pattern[str]], ...]:
    return tuple((words, re.compile(pattern, re.DOTALL)) for words, pattern in _PATTERNS)


@cache
def _secret_key() -> re.Pattern[str]:
    return re.compile(_SECRET_KEY, re.IGNORECASE | re.DOTALL)


def redacted(text: str) -> str:
    """``text`` without keys, tokens, private keys, passwords and what follows words like
    ``Authorization:``.
    """
    lowered = text.lower()
    for words, pattern in _compiled():
        if not words or any(word in lowered for word in words):
            text = pattern.sub(rf"\g<keep>{REDACTED}", text)
    return text


def is_secret_key(key: object) -> bool:
    """Whether a value under that key is a secret by its name alone."""
    return isinstance(key, str) and _secret_key().fullmatch(key) is not None


def without_secrets(value: Any, redact: Redact = redacted, *, depth: int = _DEPTH) -> Any:
    """Data with its secrets replaced: by their key (also of a pair, as headers are often kept) or by
    their look. What has none is given back as it is; an object that would show one becomes text.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return redact(value)
    if depth > 0 and isinstance(value, Mapping):
        return {key: _under(key, each, redact, depth - 1) for key, each in value.items()}
    if depth > 0 and type(value) in {list, tuple, set, frozenset}:
        if type(value) is tuple and len(value) == 2:
            return (
                without_secrets(value[0], redact, depth=depth - 1),
                _under(value[0], value[1], redact, depth - 1),
            )
        return type(value)(without_secrets(each, redact, depth=depth - 1) for each in value)
    shown = repr(value)
    safe = redact(shown)
    return value if safe == shown else safe


def _under(key: object, value: Any, redact: Redact, depth: int) -> Any:
    if is_secret_key(key):
        return value if value is None or value == "" else REDACTED
    if key in _SHAPES and isinstance(value, Mapping):
        return {
            name: without_secrets(shape, redact, depth=depth - 1)
            if isinstance(shape, Mapping)
            else _under(name, shape, redact, depth - 1)
            for name, shape in value.items()
        }
    return without_secrets(value, redact, depth=depth)
