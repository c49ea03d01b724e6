"""URLs as they may be recorded and shown: without the secrets that people write into them."""

from __future__ import annotations

import re

#: What stands in the place of a user, a password or a query.
HIDDEN = "…"

_BEFORE_HOST = r"(?s)^(\w[\w+.-]*://|//)?.*@"


def without_secrets(url: str) -> str:
    """``url``, which need not be a sound one, with HIDDEN for its user and password, its query and fragment.

    Where a question mark or a hash comes before an ``@``, a password cannot be distinguished from a query, so
    nothing but the scheme is left.
    """
    before, mark, rest = _split(url)
    if "@" in rest:
        scheme, sep, _ = url.partition("://")
        return f"{scheme}://{HIDDEN}" if sep and re.fullmatch(r"\w+", scheme) else HIDDEN
    if "@" in before:
        before = re.sub(_BEFORE_HOST, rf"\g<1>{HIDDEN}@", before)
    return f"{before}{mark}{HIDDEN}" if rest else f"{before}{mark}"


def hides_credentials(url: str) -> bool:
    """Whether a user or a password once stood in ``url``, which ``without_secrets`` took out."""
    return f"//{HIDDEN}@" in url


def _split(url: str) -> tuple[str, str, str]:
    found = re.search(r"[?#]", url)
    return (url, "", "") if found is None else (url[: found.start()], found[0], url[found.end() :])
