"""What a server's refusal means, pure: status, headers and body in, a classified ModelError out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from protocol.errors import ModelError, ModelErrorKind

#: How much of a server's own words a message carries.
MAX_WORDS = 600


class Complaint(Struct, frozen=True):
    """What a body says, whatever its form: in words, by ``type``, by ``code``, and in numbers."""

    words: str = ""
    type: str = ""
    code: str = ""
    prompt_tokens: int | None = None
    context_window: int | None = None

    @property
    def text(self) -> str:
        """All that can be searched, in lower case."""
        return f"{self.type} {self.code} {self.words}".lower()


def classify(
    status: int | None,
    headers: Mapping[str, str],
    body: bytes | object,
    *,
    where: str | None = None,
    now: float = 0.0,
) -> ModelError:
    """The error that a server's answer means.

    ``status`` is None for an error event in the middle of a stream, ``body`` bytes or what they decode to,
    ``headers`` have names in lower case or look them up without regard to case, ``now`` is seconds since
    the epoch (for ``Retry-After`` dates).
    """
    complaint = complaint_of(body)
    told = status if status is not None else _status_of(complaint.code)
    kind = kind_of(told, complaint)
    moved = headers.get("location") if told is not None and 300 <= told < 400 else None
    words = f"go to {moved}" if moved else _clipped(complaint.words or complaint.type or "no reason given")
    said = f"answered {told}" if told is not None else "broke off its answer"
    return ModelError(
        f"{where or 'the model server'} {said}: {words}",
        kind=kind,
        hint=_hint(kind, told, complaint),
        status=told,
        retry_after=retry_after(headers, complaint.words, now=now),
        where=where,
        retryable=_retryable(kind, headers),
        prompt_tokens=complaint.prompt_tokens,
        context_window=complaint.context_window,
    )


def complaint_of(body: bytes | object) -> Complaint:
    """What ``body`` says: any of the forms of WIRE (``error``, ``detail``, a bare message) or plain text."""
    data = _decoded(body) if isinstance(body, bytes) else body
    while isinstance(data, list) and data:
        data = data[0]
    if isinstance(data, str):
        return _with_numbers(Complaint(_without_markup(data)))
    if not isinstance(data, dict):
        return Complaint()
    inner = data.get("error") or data.get("detail") or data
    if isinstance(inner, list):
        return Complaint("; ".join(_words(each) for each in inner))
    if not isinstance(inner, dict):
        return _with_numbers(Complaint(str(inner), _word(data.get("type")), _word(data.get("code"))))
    return _with_numbers(
        Complaint(
            _words(inner),
            _word(inner.get("type")),
            _word(inner.get("code") or inner.get("status") or data.get("code")),
            _whole(inner.get("n_prompt_tokens")),
            _whole(inner.get("n_ctx")),
        )
    )


def kind_of(status: int | None, complaint: Complaint) -> ModelErrorKind:
    """What kind of refusal it is: the status first, then the body's type and code, then its words."""
    text = complaint.text
    if status not in {401, 403, 404} and re.search(_OVERFLOW, text):
        return "context_overflow"
    if status in {400, 402, 403, 429} and re.search(_BILLING, text) and not re.search(_TRY_AGAIN, text):
        return "billing"
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status is None or status >= 500:
        return _kind_by_words(text, status)
    if 300 <= status < 400:
        return "invalid_request"
    return _kind_of_bad_request(text)


# Patterns are compiled when first used, which only a refusal makes them be.
_OVERFLOW = (
    r"exceed_context_size_error|context_length_exceeded|contextwindowexceedederror"
    r"|model_context_window_exceeded|request_too_large|string_above_max_length"
    r"|exceeds? the (available |model'?s? )?(maximum )?context (size|length|window)"
    r"|prompt is too long|prompt too long|maximum context length|maximum allowed number of (input )?tokens"
    r"|(input|prompt|request|context)[^.]{0,40} (is )?too (long|large) for|exceeds? (the )?context window"
    r"|reduce the length of the (messages|prompt|input)|input (token count|length)[^.]{0,60}exceed"
    r"|input is too long for requested model|greater than the context length|larger than the context"
)
_BILLING = (
    r"insufficient_quota|exceeded your current quota|credit balance|billing_(error|hard_limit)"
    r"|billing hard limit|payment required|insufficient (balance|funds|credits?)|spend(ing)? limit"
)
_BY_STATUS: dict[int | None, ModelErrorKind] = {
    401: "auth",
    402: "billing",
    403: "auth",
    404: "not_found",
    408: "timeout",
    409: "server",
    413: "context_overflow",
    429: "rate_limit",
    529: "overloaded",
}
#: Of servers' types, codes and words where the status says little, the first that fits.
_WORDS: tuple[tuple[str, ModelErrorKind], ...] = (
    (r"insufficient_quota|billing_error|credit balance", "billing"),
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
    (r"authentication|invalid.api.key|incorrect api key", "auth"),
    (r"content_filter|content_policy|content management policy|responsibleai", "content_filter"),
    (r"not_?found_?error|model_not_found|model\b.{0,80}\b(not found|does not exist)", "not_found"),
    (r"rate_limit_error|ratelimiterror", "rate_limit"),
    (r"overloaded_error", "overloaded"),
)


def _kind_by_words(text: str, status: int | None) -> ModelErrorKind:
    for pattern, kind in _WORDS:
        if re.search(pattern, text):
            return kind
    return {503: "overloaded", 504: "timeout", 501: "invalid_request"}.get(status or 0, "server")  # type: ignore[return-value]


def _kind_of_bad_request(text: str) -> ModelErrorKind:
    for pattern, kind in _BAD_REQUEST:
        if re.search(pattern, text):
            return kind
    return "invalid_request"


def _retryable(kind: ModelErrorKind, headers: Mapping[str, str]) -> bool | None:
    """What the server itself says of sending the same again; None where it says nothing of use."""
    if kind == "context_overflow":
        return False
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
    found = re.search(_TRY_AGAIN, words)
    if found is None or not any(found.groups()):
        return None
    hours, minutes, seconds_, millis = (float(group or 0) for group in found.groups())
    return hours * 3600 + minutes * 60 + seconds_ + millis / 1000


_TRY_AGAIN = (
    r"(?i)(?:try again|retry) in (?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?) ?s)?(?:(\d+(?:\.\d+)?) ?ms)?"
)


def _number(value: str | None) -> float | None:
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _until(date: str, now: float) -> float | None:
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - 4 ms, for what is rarely sent

    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def _hint(kind: ModelErrorKind, status: int | None, complaint: Complaint) -> str | None:
    if status is not None and 300 <= status < 400:
        return "it redirects, and a key is never sent on: put the address it names into base_url"
    if kind == "context_overflow":
        room = f" of {complaint.context_window} tokens" if complaint.context_window else ""
        return f"the history does not fit the context{room}: compact it, or use a model with more room"
    return {
        "rate_limit": "wait, or send less at once",
        "overloaded": "the server is busy or still loading its model: try again in a while",
        "auth": "check the key: api_key_env in [model] names the environment variable that holds it",
        "billing": "the account behind the key is out of credit or over its limit",
        "not_found": "check the model id, and base_url, which usually ends in /v1",
        "content_filter": "the provider's filter refused it: say it differently",
        "timeout": "the server gave up waiting: a smaller prompt or model may help",
        "server": "the server failed; its own log may say why",
    }.get(kind)


def _status_of(code: str) -> int | None:
    return int(code) if re.fullmatch(r"[3-5]\d\d", code) else None


_TOKENS = (
    r"(?i)(?P<used>\d+) tokens? (?:>|exceeds?[^\d]{1,60}) ?\(?(?P<room>\d+)",
    (
        r"(?is)maximum context length is (?P<room>\d+)\D.*?"
        r"(?:resulted in|requested|contains) (?:about )?(?P<used>\d+)"
    ),
    r"(?i)\((?P<used>\d+) tokens\) exceeds[^\d]{1,60}\((?P<room>\d+)",
)


def _with_numbers(complaint: Complaint) -> Complaint:
    """The complaint with the numbers of an overflow, where they stand in its words alone."""
    if complaint.context_window is not None or not re.search(_OVERFLOW, complaint.text):
        return complaint
    for pattern in _TOKENS:
        if found := re.search(pattern, complaint.words):
            return msgspec.structs.replace(
                complaint, prompt_tokens=int(found["used"]), context_window=int(found["room"])
            )
    return complaint


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body.decode("utf-8", "replace")


def _words(told: Any) -> str:
    """The words of an error object: its message, or where it has none the object itself."""
    if not isinstance(told, dict):
        return str(told)
    for key in ("message", "msg", "detail"):
        if isinstance(told.get(key), str):
            place = told.get("loc") if key == "msg" else None
            at = ".".join(str(each) for each in place) if isinstance(place, list) else ""
            return f"{at}: {told[key]}" if at else str(told[key])
    return msgspec.json.encode(told).decode()


def _word(value: Any) -> str:
    return str(value) if isinstance(value, str | int) else ""


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _without_markup(text: str) -> str:
    """An HTML page (of a proxy, say) as its title and words."""
    if "<" not in text:
        return text.strip()
    text = re.sub(r"(?is)<(script|style)\b.*?</\1>", " ", text[:8192])
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


_KEY = r"\b(sk|key|Bearer)([-_ ])[\w*.-]{8,}"


def _clipped(words: str) -> str:
    """Words of a length for a line, without anything that looks like a key."""
    words = " ".join(re.sub(_KEY, r"\1\2…", words).split())
    return words if len(words) <= MAX_WORDS else words[: MAX_WORDS - 1] + "…"
