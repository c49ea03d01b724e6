"""Secrets taken out of text and of data before they are kept for long or shown to anybody."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SECRETS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "private key",
        re.compile(
            r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*-----|\Z)", re.DOTALL
        ),
    ),
    ("password", re.compile(r"(?<=://)(?P<keep>[^\s:/@]*:)[^\s/]+(?=@)")),
    ("token", re.compile(r"(?<=://)[^\s:/@\[]{20,}(?=@)")),
    (
        "API key",
        re.compile(
            r"\b(?:sk-[A-Za-z0-9_-]{8,}|[rs]k_(?:live|test)_[A-Za-z0-9]{16,}|AIza[A-Za-z0-9_-]{30,}"
            r"|(?:AKIA|ASIA)[A-Z0-9]{16}|hf_[A-Za-z0-9]{20,}|gsk_[A-Za-z0-9]{20,}|xai-[A-Za-z0-9]{20,})\b"
        ),
    ),
    (
        "token",
        re.compile(
            r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}"
            r"|xox[abeoprs]-[A-Za-z0-9-]{10,}|npm_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{30,}"
            r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*)"
        ),
    ),
    ("token", re.compile(r"(?P<keep>\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{12,}", re.IGNORECASE)),
    (
        "token",
        re.compile(
            r"(?P<keep>\bauthorization\b[\"']?\s*[=:]\s*[\"']?(?:(?:Bearer|Basic|Digest|Token)\s+)?+)"
            r"(?!\[redacted )[^\s\"',;]{6,}",
            re.IGNORECASE,
        ),
    ),
    (
        "token",
        re.compile(
            r"(?P<keep>[?&](?:[\w-]*token|key|sig|signature)=)(?!\[redacted )[^\s&#\"']+", re.IGNORECASE
        ),
    ),
    (
        "secret",
        re.compile(
            r"(?P<keep>\b[\w-]*(?:api[_-]?key|secret|passw(?:or)?d|passphrase|access[_-]?token|auth[_-]?token"
            r"|private[_-]?key|client[_-]?secret)\b[\"']?\s*(?:=|:)\s*[\"']?)(?!\[redacted )[^\s\"',;]{6,}",
            re.IGNORECASE,
        ),
    ),
)
#: Keys whose values are secrets whatever they look like: ``api_key``, ``X-Api-Key``, ``refresh_token``;
#: not ``api_key_env``, which names a variable, and not ``max_tokens``.
_SECRET_KEY = re.compile(
    r"(?:.*[\W_])?(?:api[_-]?key|authorization|passw(?:or)?d|passphrase|secret|token|private[_-]?key"
    r"|cookie|credentials?)",
    re.IGNORECASE,
)
#: What stands for the value of such a key.
HIDDEN = "[redacted]"
#: Data nested deeper than this is looked at as the text it is shown as.
_DEPTH = 16


def redacted(text: str) -> str:
    """``text`` with keys, tokens, private keys and passwords replaced by what they were."""
    for what, pattern in _SECRETS:
        keep = r"\g<keep>" if "keep" in pattern.groupindex else ""
        text = pattern.sub(f"{keep}[redacted {what}]", text)
    return text


def is_secret_key(key: object) -> bool:
    """Whether a value under that key is a secret by its name alone."""
    return isinstance(key, str) and _SECRET_KEY.fullmatch(key) is not None


def without_secrets(value: Any, *, depth: int = _DEPTH) -> Any:
    """Data with its secrets replaced: by their key (also of a pair, as headers are often kept) or by
    their look. What has none is given back as it is; an object that would show one becomes text.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return redacted(value)
    if depth > 0 and isinstance(value, Mapping):
        return {key: _under(key, each, depth - 1) for key, each in value.items()}
    if depth > 0 and type(value) in {list, tuple, set, frozenset}:
        if type(value) is tuple and len(value) == 2:
            return (without_secrets(value[0], depth=depth - 1), _under(value[0], value[1], depth - 1))
        return type(value)(without_secrets(each, depth=depth - 1) for each in value)
    shown = repr(value)
    safe = redacted(shown)
    return value if safe == shown else safe


def _under(key: object, value: Any, depth: int) -> Any:
    if is_secret_key(key):
        return value if value is None or value == "" else HIDDEN
    return without_secrets(value, depth=depth)
