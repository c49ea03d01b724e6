"""Addresses of model servers as people write them, and the secrets in what is sent to them."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterable
from urllib.parse import urlsplit

from actors.llm.http.headers import trimmed
from actors.net.proxies import (
    proxy_for,  # noqa: F401 - programs import it from here as well
    where_of,
)
from protocol.errors import ModelError
from protocol.urls import hides_credentials, without_secrets


def base_url_of(text: str) -> str:
    """A base URL without what people append to it: a trailing slash, or the path of the endpoint itself.
    Raises ModelError if it is not an http URL, or if it was read from a session, which keeps no credentials.
    """
    url = trimmed(text).rstrip("/").removesuffix("/chat/completions").rstrip("/")
    try:
        parts = urlsplit(url)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or _NO_URL.search(url):
        raise ModelError(
            f"{without_secrets(text)!r} is not a base URL",
            kind="invalid_request",
            hint="write it like http://127.0.0.1:11434/v1",
        )
    if hides_credentials(url):
        raise ModelError(
            f"{url} had a user or password when the session was opened, and sessions do not store them",
            kind="auth",
            hint="give the whole base URL again (--base-url, or base_url in the manifest)",
            where=where_of(url),
        )
    return url


#: What stands in no base URL: a question or a fragment, blanks, quotes, and what nobody sees.
_NO_URL = re.compile(
    "[?#\\s\"'<>\\\\^`{|}\x00-\x1f\x7f\u200b-\u200f\u2018-\u201f\u2039\u203a\u2060\ufeff\u00ab\u00bb]"
)


def secrets_in(headers: Iterable[str]) -> list[bytes]:
    """The keys and passwords that the values of headers may be."""
    secrets = []
    for value in headers:
        scheme, _, rest = value.rpartition(" ")
        secrets.append(rest.encode())
        if scheme == "Basic":
            secrets.append(b64decode(rest).partition(b":")[2])
    return secrets
