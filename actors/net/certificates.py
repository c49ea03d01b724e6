"""The certificates that are trusted: those that the environment names, else the usual ones."""

from __future__ import annotations

import os
import ssl
from functools import cache

from protocol.errors import ModelError


def certificates() -> ssl.SSLContext:
    """The certificate store, loaded once (20 ms): the one the environment names, else the usual one.

    Raises ModelError where the environment names one that cannot be used.
    """
    return _load(os.environ.get("SSL_CERT_FILE") or None, os.environ.get("SSL_CERT_DIR") or None)


@cache
def _load(file: str | None, folder: str | None) -> ssl.SSLContext:
    if file is None and folder is None:
        import httpx  # noqa: PLC0415 - which knows the usual ones

        return httpx.create_ssl_context(trust_env=False)
    setting = f"SSL_CERT_DIR={folder}"
    try:
        if folder is not None:
            _look_into(folder)
        setting = f"SSL_CERT_FILE={file}" if file is not None else f"SSL_CERT_DIR={folder}"
        return ssl.create_default_context(cafile=file, capath=folder)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the trusted certificates cannot be read: {setting}: "
            f"{getattr(error, 'strerror', None) or error}",
            kind="connection",
            hint="set it to a file of certificates in PEM format (or a folder of them), or unset it",
            retryable=False,
        ) from error


def _look_into(folders: str) -> None:
    """Raise what keeps a list of folders from being looked into, which OpenSSL passes over in silence."""
    for folder in folders.split(os.pathsep):
        if folder:
            os.scandir(folder).close()
