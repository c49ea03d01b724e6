"""What a server's refusal means, pure: status, headers and body in, a classified ModelError out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from actors.llm.error_body import Complaint, complaint_of
from actors.llm.overflow import MAX_LOOK, Overflow, is_rate_limit
from actors.runtime.redact import REDACTED, redacted
from protocol.errors import ModelError, ModelErrorKind

#: The longest that a server can ask to wait, in seconds: a year.
_LONGEST = 366 * 86400.0
#: How much of a server's own words a message carries.
MAX_WORDS = 600


def classify(
    status: int | None,
    headers: Mapping[str, str],
    body: bytes | object,
    *,
    where: str | None = None,
    now: float = 0.0,
    keyed: bool = True,
) -> ModelError:
    """The error that a server's answer means.

    ``status`` is None for an error event in the middle of a stream, ``body`` bytes or what they decode to,
    ``headers`` have names in lower case or look them up without regard to case, ``now`` is seconds since
    the epoch (for ``Retry-After`` dates), ``keyed`` whether the request had a key.
    """
    complaint = complaint_of(body)
    code = status if status is not None else _status_of(complaint.code)
    kind = kind_of(code, complaint)
    overflow = complaint.overflow if kind == "context_overflow" else None
    moved = headers.get("location") if code is not None and 300 <= code < 400 else None
    words = f"go to {moved}" if moved else complaint.words or complaint.type or "no reason given"
    said = f"answered {code}" if code is not None else "broke off its answer"
    return ModelError(
        f"{where or 'the model server'} {said}: {_clipped(words)}",
        kind=kind,
        hint=_hint(kind, code, overflow, keyed=keyed),
        status=code,
        retry_after=retry_after(headers, complaint.words, now=now),
        where=where,
        retryable=_retryable(kind, code, headers),
        prompt_tokens=overflow.used if overflow else None,
        context_window=overflow.room if overflow else None,
    )


def kind_of(status: int | None, complaint: Complaint) -> ModelErrorKind:
    """What kind of refusal it is: the status first, then the body's type and code, then its words."""
    text = complaint.text
    if status not in {401, 403, 404} and complaint.overflow is not None:
        return "context_overflow"
    if status in {None, 400, 402, 403, 429} and re.search(_BILLING, text) and not re.search(_TRY_AGAIN, text):
        return "billing"
    if status is None:
        return _kind_by_name(complaint) or _kind_by_words(text)
    if status >= 500:
        return _kind_of_failure(status, complaint)
    return _BY_STATUS.get(status) or _kind_of_refusal(status, complaint)


# Patterns are compiled when first used, which only a refusal makes them be.
_BILLING = (
    r"insufficient_quota|exceeded your current quota|credit balance|billing_(error|hard_limit)"
    r"|billing hard limit|payment required|insufficient (balance|funds|credits?)|spend(ing)? limit"
)
_MODERATION = r"requires moderation|\bflagged\b|content.?policy|content_filter"
_BY_STATUS: dict[int, ModelErrorKind] = {
    401: "auth",
    402: "billing",
    404: "not_found",
    408: "timeout",
    409: "server",
    429: "rate_limit",
}
_BY_FAILURE: dict[int, ModelErrorKind] = {
    501: "invalid_request",
    503: "overloaded",
    504: "timeout",
    529: "overloaded",
}
#: Names that servers give their errors, as whole types or codes or as the ends of them.
_NAMES: tuple[tuple[str, ModelErrorKind], ...] = (
    (r"insufficient_quota|billing_error|billing_hard_limit_reached", "billing"),
    (r"rate_?limit_?(error|exceeded)|too_many_requests|resource_exhausted|throttl\w*", "rate_limit"),
    (r"(engine_)?overloaded(_error)?|unavailable(_error)?|service_?unavailable(_?error)?", "overloaded"),
    (r"authentication_?error|unauthenticated|invalid_(api_)?key|permission_(denied|error)", "auth"),
    (r"(model_)?not_?found(_?error)?", "not_found"),
    (
        r"content_(filter|policy_violation)|content_?policy_?violation_?error|responsibleai\w*",
        "content_filter",
    ),
    (r"(time_?out|deadline_exceeded)(_?error)?", "timeout"),
    # Groq: what the model wrote is no call, or no JSON of the shape that was asked for
    (r"tool_use_failed|json_validate_failed|output_parse_failed", "protocol"),
    (r"invalid_?(request|argument)(_?error)?|bad_?request(_?error)?", "invalid_request"),
    (r"(api|server|internal_?server|internal)(_?error)?", "server"),
)
#: Kinds that a server's own name of its error decides where it failed (status 500 and above); a name
#: like ``authentication_error`` does not make a failure one that cannot pass.
_PASSING = frozenset({"rate_limit", "overloaded", "timeout"})
#: What llama-server fails at (status 500) as often as it is asked the same.
_FAILS_FOR_EVER = (
    r"failed to parse (tool|input|messages|grammar)|image input is not supported|audio input is not supported"
    r"|\[json\.exception\.|\bjinja\b|chat template"
)
#: Of servers' words where there is no status, the first that fits.
_WORDS: tuple[tuple[str, ModelErrorKind], ...] = (
    (r"credit balance", "billing"),
    (r"rate.?limit|too many requests|resource_?exhausted", "rate_limit"),
    (r"overloaded|unavailable|loading model|no slot available|at capacity", "overloaded"),
    (r"authentication|permission_error|invalid.api.key|unauthorized", "auth"),
    (r"not_?found_?error|model_not_found", "not_found"),
    (r"content_filter|content_policy|content management policy", "content_filter"),
    (r"time_?out|timed out", "timeout"),
    (r"invalid_request|bad_?request|not_supported|not supported|unsupported", "invalid_request"),
    # a server that cannot read what it was sent will not be able to later
    (r"parse_error|failed to parse|type_error\.|jinja|chat template", "invalid_request"),
)
_BAD_REQUEST: tuple[tuple[str, ModelErrorKind], ...] = (
    (r"invalid.api.key|incorrect api key|invalid x-api-key", "auth"),
    (r"content_filter|content_policy|content management policy|responsibleai", "content_filter"),
    (r"\bmodel\b.{0,80}\b(not found|does not exist)", "not_found"),
)


def _kind_by_name(complaint: Complaint) -> ModelErrorKind | None:
    """The kind that the server's type or code names; litellm names it at the beginning of its words."""
    names = [complaint.type.lower(), complaint.code.lower()]
    if found := re.match(r"litellm\.(\w+)", complaint.words):
        names.insert(0, found[1].lower())
    for pattern, kind in _NAMES:
        if any(re.fullmatch(pattern, name) for name in names):
            return kind
    return None


def _kind_by_words(text: str) -> ModelErrorKind:
    return next((kind for pattern, kind in _WORDS if re.search(pattern, text)), "server")


def _kind_of_refusal(status: int, complaint: Complaint) -> ModelErrorKind:
    """The kind of error of a request that the server refused, by its status and words."""
    text = complaint.text
    if status < 400:
        return "invalid_request"
    if status == 403:
        return "content_filter" if re.search(_MODERATION, text) else "auth"
    if status == 413:
        return _kind_of_too_large(text)
    named = _kind_by_name(complaint)
    if named not in {None, "invalid_request", "server"}:
        return named or "invalid_request"
    return next((kind for pattern, kind in _BAD_REQUEST if re.search(pattern, text)), "invalid_request")


def _kind_of_too_large(text: str) -> ModelErrorKind:
    """The kind of error of a request that is too large: for the tokens of a minute, by an image, or else by
    its history.
    """
    if is_rate_limit(text):
        return "rate_limit"
    return "invalid_request" if re.search(r"\bimages?\b|\bpdf\b", text) else "context_overflow"


def _kind_of_failure(status: int, complaint: Complaint) -> ModelErrorKind:
    """The kind of error of a server that failed: a temporary one, unless the server is known to fail at this
    request every time.
    """
    named = _kind_by_name(complaint)
    if named is not None and named in _PASSING:
        return named
    if status == 500 and re.search(_FAILS_FOR_EVER, complaint.words.lower()):
        return "invalid_request"
    return _BY_FAILURE.get(status, "server")


def _retryable(kind: ModelErrorKind, status: int | None, headers: Mapping[str, str]) -> bool | None:
    """What the server itself says of sending the same again; None where it says nothing of use."""
    if kind == "context_overflow" or status == 413:
        return False  # the same request never gets smaller
    if kind == "protocol":
        return True  # the model may write it right the next time
    return {"true": True, "false": False}.get((headers.get("x-should-retry") or "").strip().lower())


def retry_after(headers: Mapping[str, str], words: str = "", *, now: float = 0.0) -> float | None:
    """The seconds a server asks to wait, by any header that says so or else by its words."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    for name in ("retry-after", "llm_provider-retry-after"):
        value = headers.get(name)
        if value:
            seconds = _number(value)
            return seconds if seconds is not None else _until(value, now)
    found = re.search(_TRY_AGAIN, words[:MAX_LOOK])
    if found is None or not any(found.groups()):
        return None
    hours, minutes, seconds_, millis = (float(group or 0) for group in found.groups())
    return _sane(hours * 3600 + minutes * 60 + seconds_ + millis / 1000)


_AMOUNT = r"(\d{1,9}(?:\.\d{1,9})?)"
_TRY_AGAIN = (
    r"(?i)(?:try again|retry) (?:in|after(?= \d)) "  # not: after you have paid
    r"(?:(\d{1,9}) ?h(?:ours?|rs?)?[ ,]*)?(?:(\d{1,9}) ?m(?!s|il)(?:in\w*)?[ ,]*)?"
    rf"(?:{_AMOUNT} ?s(?:ec\w*)?[ ,]*)?(?:{_AMOUNT} ?m(?:s|il))?"
)


def _number(value: str | None) -> float | None:
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return _sane(seconds)


def _sane(seconds: float) -> float | None:
    """A time to wait in seconds, at most a year; None for anything that is not a number."""
    return min(max(0.0, seconds), _LONGEST) if math.isfinite(seconds) else None


def _until(date: str, now: float) -> float | None:
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - 4 ms, for what is rarely sent

    try:
        return _sane(parsedate_to_datetime(date).timestamp() - now)
    except (ValueError, TypeError, OverflowError, OSError):
        return None


def _hint(kind: ModelErrorKind, status: int | None, overflow: Overflow | None, *, keyed: bool) -> str | None:
    if status is not None and 300 <= status < 400:
        return (
            "the server redirects, but a key is never forwarded: set base_url to the address in the message"
        )
    if kind == "auth" and not keyed:
        return (
            "no key was sent: export it in an environment variable, and name that in the "
            'manifest, as in [model] api_key_env = "MY_KEY"'
        )
    if kind == "context_overflow":
        room = f" of {overflow.room} tokens" if overflow is not None and overflow.room else ""
        ways = "compact the history, give the pod fewer tools, or use a model with a larger context"
        return f"the request does not fit the context{room}: {ways}"
    if kind == "rate_limit" and status == 413:
        return "this single request exceeds the account's token rate limit: make it smaller"
    return {
        "rate_limit": "wait, or send fewer requests at once",
        "overloaded": "the server is busy or still loading its model: try again later",
        "auth": "check the key: api_key_env of the model names the environment variable that holds it",
        "billing": "the account behind the key is out of credit or over its limit",
        "not_found": "check the model id, and base_url, which usually ends in /v1",
        "content_filter": "the provider's filter refused it: rephrase the request",
        "timeout": "the server gave up waiting: a smaller prompt or model may help",
        "server": "the server failed: check its log",
        "protocol": "the server could not read what its model wrote: the model may be too small for tools",
    }.get(kind)


def names_picture(words: str) -> bool:
    """Whether the words of a refusal are about a picture: that it cannot be read, is too large, or is not at
    its URL.
    """
    return re.search(r"image|picture|base64|media.?type|\burl\b|download", words.lower()) is not None


def _status_of(code: str) -> int | None:
    return int(code) if re.fullmatch(r"[3-5]\d\d", code) else None


_LOGIN = r"//[^/\s@]{1,200}@"
#: What begins as keys do, and what follows the word: only what no word of a sentence looks like.
_KEY = r"\b((?:sk|key|pk)[-_])(?=[\w*.-]*[\d*A-Z])[\w*.-]{8,}"
_BEARER = r"\b(Bearer )(?!authenti|authori|credential)\S{8,}"
_NAMED_KEY = (
    r"(?i)\b((?:key|token|bearer)(?: (?:provided|given|sent|used|received|supplied))?"
    r"\s{0,3}[:=]?\s{0,3}[\"'`(<]?)"
    r"(?=[\w*.-]*[\d*])[\w*.+/=-]{8,}"
)


def _clipped(words: str) -> str:
    """The words, cut to fit a line, without anything that looks like a key."""
    words = redacted(re.sub(_LOGIN, "//…@", words[: 8 * MAX_WORDS])).replace(REDACTED, "…")
    for pattern in (_KEY, _BEARER, _NAMED_KEY):
        words = re.sub(pattern, r"\1…", words)
    words = " ".join(words.split())
    return words if len(words) <= MAX_WORDS else words[: MAX_WORDS - 1] + "…"
