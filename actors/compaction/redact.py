"""Secrets taken out of text before it is kept for long."""

from __future__ import annotations

import re

_SECRETS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "private key",
        re.compile(
            r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*-----|\Z)", re.DOTALL
        ),
    ),
    ("password", re.compile(r"(?<=://)(?P<keep>[^\s:/@]*:)[^\s/]+(?=@)")),
    (
        "API key",
        re.compile(
            r"\b(?:sk-[A-Za-z0-9_-]{16,}|[rs]k_(?:live|test)_[A-Za-z0-9]{16,}|AIza[A-Za-z0-9_-]{30,}"
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
        "secret",
        re.compile(
            r"(?P<keep>\b[\w-]*(?:api[_-]?key|secret|passw(?:or)?d|passphrase|access[_-]?token|auth[_-]?token"
            r"|private[_-]?key|client[_-]?secret)\b[\"']?\s*(?:=|:)\s*[\"']?)(?!\[redacted )[^\s\"',;]{6,}",
            re.IGNORECASE,
        ),
    ),
)


def redacted(text: str) -> str:
    """``text`` with keys, tokens, private keys and passwords replaced by what they were."""
    for what, pattern in _SECRETS:
        keep = r"\g<keep>" if "keep" in pattern.groupindex else ""
        text = pattern.sub(f"{keep}[redacted {what}]", text)
    return text
