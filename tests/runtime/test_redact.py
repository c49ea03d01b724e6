import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.runtime.redact import HIDDEN, redacted, without_secrets

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


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Token short1", "short1"),
        ('{"authorization": "hunter2x"}', "hunter2x"),
        ("GET /v1/models?key=abc&limit=3", "abc"),
        ("https://0123456789abcdef0123@git.example/x", "0123456789abcdef0123"),
    ],
)
def test_secrets_in_requests_are_taken_out(text, secret):
    assert secret not in redacted(text)


@pytest.mark.parametrize(
    "key",
    [
        "api_key",
        "X-Api-Key",
        "OPENAI_API_KEY",
        "Authorization",
        "password",
        "refresh_token",
        "token",
        "Set-Cookie",
    ],
)
def test_what_stands_under_the_key_of_a_secret_is_hidden_however_it_looks(key):
    assert without_secrets({key: "x"}) == {key: HIDDEN}
    assert without_secrets([(key, b"x")]) == [(key, HIDDEN)]
    assert without_secrets({key: ["a", "b"]}) == {key: HIDDEN}


@pytest.mark.parametrize(
    "key", ["api_key_env", "max_tokens", "input_tokens", "tokens", "secretary", "keys", 7, None]
)
def test_what_only_sounds_like_a_secret_stays(key):
    assert without_secrets({key: "x", "n": 3}) == {key: "x", "n": 3}
    assert without_secrets({"api_key": None, "token": ""}) == {"api_key": None, "token": ""}


def test_an_object_that_would_show_a_secret_becomes_text_and_any_other_stays_itself():
    harmless = ValueError("no such file")
    assert without_secrets(harmless) is harmless
    assert "hunter22" not in without_secrets(ValueError("postgresql://me:hunter22@db/x"))
    assert "hunter22" not in repr(without_secrets(b"password=hunter22"))


def test_data_that_holds_itself_has_an_end():
    itself = {"password": "hunter22"}
    itself["again"] = itself
    assert "hunter22" not in repr(without_secrets(itself))


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("abc xyz")
secrets = st.sampled_from(["sk-abcdefgh12345678", "postgresql://me:hunter22@db/x", "Bearer abcdef0123456789"])
PLANTED = ("abcdefgh12345678", "hunter22", "abcdef0123456789", "under a key")


def data(leaves):
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.tuples(inner, inner, inner)
            | st.dictionaries(st.text("abc", max_size=3), inner, max_size=4)
            | inner.map(lambda value: {"client_secret": "under a key", "rest": value})
        ),
        max_leaves=12,
    )


@given(data(plain | secrets))
def test_no_secret_is_left_in_any_data_and_taking_out_twice_changes_nothing(value):
    clean = without_secrets(value)
    assert not [secret for secret in PLANTED if secret in repr(clean)]
    assert without_secrets(clean) == clean


@given(st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text("abc"), inner)))
def test_data_without_secrets_is_left_as_it_is(value):
    assert without_secrets(value) == value
