"""Secrets taken out of what is recorded, pure; what was cleaned once stays as it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

#: What stands in a secret's place.
REDACTED = "[redacted]"

Redact = Callable[[str], str]

#: Beginnings by which vendors mark their keys and tokens, each with as much as makes it one.
_MARKED = (
    r"sk-[\w-]{12,}",
    r"[rs]k_(?:live|test)_\w{12,}",
    r"(?:AKIA|ASIA)[A-Z0-9]{16}",
    r"AIza[\w-]{30,}",
    r"gh[oprsu]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}",
    r"xox[a-z]-[\w-]{10,}",
    r"(?:hf|gsk|npm)_\w{20,}|pypi-[\w-]{30,}|xai-\w{20,}",
    r"eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*",
)
#: Names of fields, headers and variables that hold secrets.
_NAMES = (
    r"[\w-]*(?:api[_-]?key|secret(?:[_-]?key)?|passw(?:or)?d|passphrase|private[_-]?key"
    r"|(?:access|auth|refresh|bearer|session)[_-]?token|authorization|credentials?)"
)


def without_secrets(text: str) -> str:
    """``text`` without keys, tokens, passwords and what follows words like ``Authorization:``."""
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\g<keep>{REDACTED}", text)
    return text


_PATTERNS = (
    re.compile(r"(?P<keep>)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|\Z)", re.DOTALL),
    re.compile(rf"(?P<keep>)(?<![\w-])(?:{'|'.join(_MARKED)})(?![\w-])"),
    re.compile(r"(?P<keep>\b(?:bearer|basic|token) +)(?=[^\s\d]*\d)[\w.~+/=-]{12,}", re.IGNORECASE),
    re.compile(r"(?P<keep>://[^\s:/@]*:)[^\s/@\[]+(?=@)"),
    re.compile(
        rf"(?P<keep>(?<![\w-]){_NAMES}[\"']? *[:=] *[\"']?)(?!bearer\b|basic\b|token\b)[^\s\"',;\\\[]{{6,}}",
        re.IGNORECASE,
    ),
)


def cleaned(value: Any, redact: Redact = without_secrets) -> Any:
    """Plain data with all its texts redacted, and those whole that stand under the name of a secret."""
    if isinstance(value, str):
        # half characters, which UTF-8 does not know, become question marks
        return redact(value if value.isascii() else value.encode("utf-8", "replace").decode())
    if isinstance(value, dict):
        return {key: _field(key, inner, redact) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(inner, redact) for inner in value]
    return value


def _field(key: Any, value: Any, redact: Redact) -> Any:
    if value and isinstance(value, str) and re.fullmatch(_NAMES, str(key), re.IGNORECASE):
        return REDACTED
    return cleaned(value, redact)
