import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.compaction.redact import redacted

KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nabc\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("key sk-ant-" + "api03" * 5 + " here", "api03"),
        ("OPENAI_API_KEY=sk-proj-abcdefghijklmnop1234", "abcdefghijklmnop"),
        ("aws AKIAIOSFODNN7EXAMPLE", "IOSFODNN"),
        ("token ghp_abcdefghijklmnopqrstuvwxyz0123456789", "abcdefghij"),
        ("slack xoxb-123456789012-abcdef", "123456789012"),
        ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc-def", "eyJzdWIi"),
        ("Authorization: Bearer abcdef0123456789abcdef", "abcdef0123456789"),
        (KEY, "MIIEow"),
        ("cut " + KEY[:40], "MIIE"),
        ("postgresql://me:hunter22@db/x", "hunter22"),
        ("https://me:p@ss:word@host/x", "ss:word"),
        ('{"password": "correcthorse"}', "correcthorse"),
        ("client_secret = 'abc123def'", "abc123def"),
    ],
)
def test_secrets_are_taken_out(text, secret):
    assert secret not in redacted(text)
    assert "[redacted " in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "the user prefers tabs",
        "see https://example.com/a:b@c and mail me@example.com",
        "the token budget is 4096",
        "call skip-this-one-because-it-is-long",
        "postgresql://db/x",
        "a secret is not a password",
    ],
)
def test_what_is_no_secret_stays(text):
    assert redacted(text) == text


def test_what_stands_around_a_secret_stays():
    assert redacted("postgresql://me:hunter22@db/x is up") == "postgresql://me:[redacted password]@db/x is up"


@given(st.text(), st.sampled_from([KEY, "password=hunter22", "Bearer abcdef0123456789", "a://b:c@d"]))
def test_taking_out_secrets_twice_changes_nothing(text, secret):
    once = redacted(text + secret + text)
    assert redacted(once) == once
