"""A server's refusal gets its right kind, says when to come back, and what to do."""

import json
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.llm.errors import MAX_WORDS, classify, retry_after
from protocol.errors import MODEL_ERROR_KINDS, ModelError

HERE = "127.0.0.1:8080"


def refused(status: int | None, body: object, **headers: str) -> ModelError:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return classify(status, named, data, where=HERE)


def said(message: str, kind: str = "", code: object = None) -> dict:
    return {"error": {"message": message, "type": kind, "code": code}}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "no", "type": "x"}}, "no"),
        ({"type": "error", "error": {"type": "api_error", "message": "no"}}, "no"),
        ({"error": "no"}, "no"),
        ({"detail": "no"}, "no"),
        ({"detail": [{"loc": ["body", "model"], "msg": "field required"}]}, "body.model: field required"),
        ({"detail": {"message": "no"}}, "no"),
        ({"object": "error", "message": "no", "type": "BadRequestError", "code": 400}, "no"),
        ([{"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}}], "no"),
        (b"no", "no"),
        (
            b"<html><head><title>502 Bad Gateway</title></head><body><h1>nginx</h1></body>",
            "502 Bad Gateway nginx",
        ),
        (b"", "no reason given"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ({"error": {}}, "{"),
    ],
)
def test_every_form_of_body_gives_its_words(body, words):
    error = refused(400, body)
    assert error.message.startswith(f"{HERE} answered 400: ")
    assert words in error.message


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request"),
        (401, "auth"),
        (402, "billing"),
        (403, "auth"),
        (404, "not_found"),
        (405, "invalid_request"),
        (408, "timeout"),
        (409, "server"),
        (413, "context_overflow"),
        (422, "invalid_request"),
        (429, "rate_limit"),
        (500, "server"),
        (501, "invalid_request"),
        (502, "server"),
        (503, "overloaded"),
        (504, "timeout"),
        (529, "overloaded"),
        (307, "invalid_request"),
    ],
)
def test_a_status_alone_gives_a_kind(status, kind):
    assert refused(status, b"").kind == kind


@pytest.mark.parametrize(
    "body",
    [
        said("too much", "exceed_context_size_error"),
        said("too much", "invalid_request_error", "context_length_exceeded"),
        said("litellm.ContextWindowExceededError: litellm.BadRequestError"),
        said("the request exceeds the available context size, try increasing it"),
        said("prompt is too long: 205000 tokens > 200000 maximum"),
        said(
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens."
        ),
        said("stopped", "model_context_window_exceeded"),
        said("Input is too long for requested model."),
        said("Please reduce the length of the messages or completion."),
        {
            "error": "Trying to keep the first 9000 tokens when context the overflows. The number of tokens to keep "
            "from the initial prompt is greater than the context length."
        },
    ],
)
@pytest.mark.parametrize("status", [400, 500, None])
def test_an_overflow_is_known_by_type_code_or_words(body, status):
    error = refused(status, body)
    assert error.kind == "context_overflow"
    assert not error.retryable
    assert "compact" in error.hint


@pytest.mark.parametrize(
    ("message", "numbers"),
    [
        ("prompt is too long: 205000 tokens > 200000 maximum", (205000, 200000)),
        (
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens.",
            (9001, 8192),
        ),
        (
            "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4000 in the messages)",
            (5000, 4096),
        ),
        (
            "request (36011 tokens) exceeds the available context size (4096 tokens), try increasing it",
            (36011, 4096),
        ),
        ("prompt is too long", (None, None)),
    ],
)
def test_the_numbers_of_an_overflow_are_read_from_its_words(message, numbers):
    error = refused(400, said(message))
    assert (error.prompt_tokens, error.context_window) == numbers


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (
            429,
            said("You exceeded your current quota, please check your plan", "insufficient_quota"),
            "billing",
        ),
        (
            429,
            said("You exceeded your current quota. Please retry in 22.5s.", "RESOURCE_EXHAUSTED"),
            "rate_limit",
        ),
        (429, said("Rate limit reached. Add a payment method at https://x/account/billing."), "rate_limit"),
        (429, said("Insufficient balance: top up and try again after payment."), "billing"),
        (400, said("Your credit balance is too low", "invalid_request_error"), "billing"),
        (400, said("invalid x-api-key", "authentication_error"), "auth"),
        (400, said("model 'no-such' not found", "invalid_request_error"), "not_found"),
        (400, said("The model `x` does not exist", "invalid_request_error", "model_not_found"), "not_found"),
        (400, said("flagged", "invalid_request_error", "content_filter"), "content_filter"),
        (500, said("Overloaded", "overloaded_error"), "overloaded"),
        (500, said("litellm.RateLimitError: slow down"), "rate_limit"),
        (500, said("Failed to parse tool call arguments as JSON", "server_error"), "invalid_request"),
        (500, said("image input is not supported", "server_error"), "invalid_request"),
        (None, said("slow down", "rate_limit_error"), "rate_limit"),
        (None, said("x", "None", "429"), "rate_limit"),
        (None, said("x", "api_error"), "server"),
        (404, said("context_length_exceeded is not a path"), "not_found"),
    ],
)
def test_status_then_type_then_words_decide(status, body, kind):
    assert refused(status, body).kind == kind


def test_a_server_that_says_whether_to_retry_is_believed():
    assert refused(400, b"", x_should_retry="true").retryable
    assert not refused(529, b"", x_should_retry="false").retryable
    assert refused(529, b"").retryable


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"llm_provider-retry-after": "9"}, 9.0),
        ({"retry-after": formatdate(1_700_000_030, usegmt=True)}, 30.0),
        ({"retry-after": formatdate(1_600_000_000, usegmt=True)}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers, seconds):
    assert retry_after(headers, now=1_700_000_000) == seconds


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Please try again in 20s.", 20.0),
        ("Please try again in 6m0s.", 360.0),
        ("try again in 1h2m3.5s", 3723.5),
        ("try again in 120ms", 0.12),
        ("Please retry in 22.5s.", 22.5),
        ("Please retry after 6 seconds.", 6.0),
        ("Try again in 2 minutes.", 120.0),
        ("try again in 1 hour, 3 minutes", 3780.0),
        ("try again in 5 milliseconds", 0.005),
        ("try again later", None),
    ],
)
def test_words_say_when_to_come_back_where_no_header_does(words, seconds):
    assert retry_after({}, words) == seconds


def test_a_redirect_names_where_to_and_is_not_followed():
    error = refused(307, b"", location="https://example.org/v1")
    assert "https://example.org/v1" in error.message
    assert "base_url" in error.hint


def test_nothing_that_looks_like_a_key_is_reported():
    error = refused(401, said("Incorrect API key provided: sk-abcDEF123456789. Bearer abcdefghijkl"))
    assert "abcDEF" not in str(error)
    assert "abcdefghijkl" not in str(error)


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        ("Incorrect API key provided: abcd1234efgh. Look at your page.", "API key provided: …"),
        ("Incorrect API key provided: …. Look at your page.", "API key provided: …. Look"),
        ("Received API Key = sk-...3456", "API Key = …"),
        ("key 'abcdef123456' is unknown", "key '…' is unknown"),
        ("Missing Bearer authentication in header", "Missing Bearer authentication in header"),
        ("API key required for model gpt-4.1-mini", "API key required for model gpt-4.1-mini"),
        ("no key provided, task-management and sk-learn need one", "task-management and sk-learn need one"),
    ],
)
def test_of_words_about_a_key_only_the_key_is_taken_out(words: str, reported: str):
    assert reported in refused(401, said(words)).message
    assert "1234" not in refused(401, said(words)).message


def test_a_refusal_says_where_no_key_was_sent_at_all():
    assert "no key was sent" in (classify(401, {}, b"", keyed=False).hint or "")
    assert "api_key_env" in (classify(403, {}, b"", keyed=False).hint or "")
    assert "check the key" in (classify(401, {}, b"", keyed=True).hint or "")


def test_long_words_are_cut():
    assert len(refused(400, said("x" * 10_000)).message) < MAX_WORDS + 60


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "detail", "message", "type", "code", "msg", "loc", "n_ctx"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.none() | st.integers(300, 599),
    _json.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40),
)
def test_no_body_whatever_breaks_the_reading(status, body):
    error = classify(status, {}, body, where=HERE)
    assert error.kind in MODEL_ERROR_KINDS
    assert HERE in error.message
