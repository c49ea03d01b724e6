"""``ServerFailures``: what a failure on the way to one server, and back, means: each as a ModelError."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

from actors.net.failures import NetworkFailure, TransportError
from actors.net.proxies import PROXY_WANTS, PROXY_WANTS_HINT, PROXY_WANTS_KEY, where_of
from protocol.errors import ModelError

#: The most of an answer that is read, streamed or not, in bytes; more no model says.
MAX_ANSWER_BYTES = 64 * 1024 * 1024


class ServerFailures:
    """The failures of requests to one server, in words that name it, and what to do about them."""

    def __init__(self, base_url: str, start_command: str | None) -> None:
        """``start_command`` starts the server, where it is one of the user's own."""
        self._base_url = base_url
        self._where = where_of(base_url)
        self._start_command = start_command
        #: The proxy on the way, once that is known; None where there is none.
        self.proxy: str | None = None

    def translated(self, error: Exception, seconds: float, deadline: float | None) -> ModelError:
        """The ModelError that a failure of the network means; ``seconds`` is what the wait was given."""
        if isinstance(error, ModelError):
            return error
        if type(error) is TimeoutError:
            return self._late(seconds, deadline)
        if type(error) is ValueError:
            hint = "check whether the server, or a proxy in front of it, changes answers"
            return ModelError(f"{self._where} sent {error}", kind="protocol", hint=hint, where=self._where)
        failure = explained(error)
        words, hint = failure.words, failure.hint or self._reach_hint()
        if failure.connecting and self.proxy is not None:
            words, hint = self._blamed(error, failure)
        return ModelError(
            f"{self._where}: {words}",
            kind=failure.kind,
            hint=hint,
            where=self._where,
            retryable=failure.retryable,
        )

    def _blamed(self, error: Exception, failure: NetworkFailure) -> tuple[str, str]:
        """The words and the hint of a failure to connect with a proxy on the way."""
        from actors.net.aiohttp_failures import is_of  # noqa: PLC0415 - loaded by now

        assert self.proxy is not None
        proxy = where_of(self.proxy)
        host = urlsplit(self._base_url).hostname
        hint = f"check HTTP_PROXY, HTTPS_PROXY and ALL_PROXY, or add {host} to NO_PROXY"
        parts = urlsplit(self.proxy)
        if is_of(error, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)):
            return f"the proxy {proxy}: {failure.words}", failure.hint or hint
        return f"{failure.words} (through the proxy {proxy})", failure.hint or hint

    def proxy_wants_key(self) -> ModelError | None:
        """The error of a proxy that asks for credentials; None where there is no proxy."""
        if self.proxy is None:
            return None
        return ModelError(
            f"{self._where}: the proxy {where_of(self.proxy)}: {PROXY_WANTS}",
            kind="auth",
            hint=PROXY_WANTS_HINT,
            status=PROXY_WANTS_KEY,
            where=self._where,
        )

    def endless(self) -> ModelError:
        """The error of an answer that is larger than any."""
        return ModelError(
            f"{self._where} sent more than {MAX_ANSWER_BYTES // 2**20} MB without stopping",
            kind="protocol",
            hint="the server may ignore max_tokens, or the model repeats itself",
            where=self._where,
            retryable=False,
        )

    def _late(self, seconds: float, deadline: float | None) -> ModelError:
        if deadline is not None and time.monotonic() >= deadline:
            return ModelError(
                f"{self._where}: the run's time was up before the answer was complete",
                kind="timeout",
                where=self._where,
                retryable=False,
            )
        return ModelError(
            f"{self._where} sent nothing for {seconds:g} s",
            kind="timeout",
            hint="local inference can be slow: use a smaller model, or a longer timeout",
            where=self._where,
        )

    def _reach_hint(self) -> str:
        start = f" Start it with: {self._start_command}" if self._start_command else ""
        parts = urlsplit(self._base_url)
        return f"is the server running at {parts.scheme}://{self._where}{parts.path}?{start}"


def explained(error: Exception) -> NetworkFailure:
    """What a failure of a transport means; anything else is a defect and is raised again."""
    if isinstance(error, TransportError):
        return error.failure
    from actors.net.aiohttp_failures import explained as explained_by_aiohttp  # noqa: PLC0415 - loaded by now, or a defect

    return explained_by_aiohttp(error)
