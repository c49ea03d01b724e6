"""Failures of the network on the way to a server and back: what each means, and what to do about it."""

from __future__ import annotations

import socket
import ssl

from msgspec import Struct

from protocol.errors import ModelErrorKind

#: The longest line of an answer's head, in bytes; cookies, policies and filters' results make long ones.
MAX_HEADER_BYTES = 256 * 1024
#: The most lines it may have; gateways add one for each thing they know.
MAX_HEADERS = 1024


class NetworkFailure(Struct, frozen=True):
    """What a failure of the network means, in our words; ``hint`` is None where the usual one fits.

    ``connecting`` says that it came to no connection, so that a proxy on the way may be the cause.
    """

    kind: ModelErrorKind
    words: str
    hint: str | None = None
    retryable: bool | None = None
    connecting: bool = False


class TransportError(Exception):
    """A failure of the network, known as ``failure``; ``unanswered`` says that a connection was there, and
    was closed before a byte of the answer had come, as idle ones are.
    """

    def __init__(self, failure: NetworkFailure, *, unanswered: bool = False) -> None:
        super().__init__(failure.words)
        self.failure = failure
        self.unanswered = unanswered


def untrusted(error: Exception) -> NetworkFailure:
    """The failure of a server's certificate that is not trusted."""
    words = f"its certificate is not trusted: {getattr(error, 'certificate_error', None) or error}"
    hint = "set SSL_CERT_FILE to the certificates that you trust"
    return NetworkFailure("connection", words, hint, retryable=False, connecting=True)


def no_tls(error: Exception) -> NetworkFailure:
    """What answers there speaks no TLS, or not ours."""
    words = f"no secure connection could be established: {getattr(error, 'os_error', None) or error}"
    hint = "check whether base_url should begin with http:"
    return NetworkFailure("connection", words, hint, retryable=False, connecting=True)


def unresolved(_: Exception) -> NetworkFailure:
    """No such host is known."""
    hint = "check the host in base_url, and the network"
    return NetworkFailure("connection", "the host was not found", hint, connecting=True)


def unreached(error: Exception) -> NetworkFailure:
    """Nobody takes a connection there."""
    cause = getattr(error, "os_error", None) or error.__cause__ or error
    if isinstance(cause, ConnectionRefusedError):
        return NetworkFailure(
            "connection", "the connection was refused: nothing listens there", connecting=True
        )
    words = f"cannot be reached: {getattr(cause, 'strerror', None) or cause}"
    return NetworkFailure("connection", words, connecting=True)


def slow_to_reach(_: Exception) -> NetworkFailure:
    """No connection came about in the time that it was given."""
    return NetworkFailure(
        "connection", "cannot be reached: no connection was established in time", connecting=True
    )


def unconnected(error: OSError) -> NetworkFailure:
    """What a failure to connect means, as the system reports it."""
    for kinds, failure in (
        (ssl.SSLCertVerificationError, untrusted),
        (ssl.SSLError, no_tls),
        (socket.gaierror, unresolved),
        (TimeoutError, slow_to_reach),
    ):
        if isinstance(error, kinds):
            return failure(error)
    return unreached(error)


def lost(_: Exception | None = None) -> NetworkFailure:
    """The failure of a connection that was lost in the middle of an answer, or before it."""
    hint = "the server stopped or a proxy gave up: check its log"
    return NetworkFailure("connection", "the connection was lost before the answer was complete", hint)


def no_http(words: str) -> NetworkFailure:
    """What answers there speaks no HTTP that can be read; ``words`` says what of it."""
    what = f"does not speak HTTP: {' '.join(words.split())[:200]}"
    return NetworkFailure("protocol", what, "check the port, and whether base_url should begin with https:")


def overlong_head() -> NetworkFailure:
    """The failure of an answer whose head is longer than any honest one."""
    words = f"sent a header of more than {MAX_HEADER_BYTES // 1024} KB, or more than {MAX_HEADERS} of them"
    return NetworkFailure(
        "protocol", words, "check which headers the server, or a proxy in front of it, adds"
    )
