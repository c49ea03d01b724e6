"""Secrets do not get into what is logged, remembered or recorded, and the rest of a text does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.runtime.redact import REDACTED, redacted, without_secrets

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
    assert REDACTED in redacted(text)


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
    assert redacted("postgresql://me:hunter22@db/x is up") == "postgresql://me:[redacted]@db/x is up"


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
    assert without_secrets({key: "x"}) == {key: REDACTED}
    assert without_secrets([(key, b"x")]) == [(key, REDACTED)]
    assert without_secrets({key: ["a", "b"]}) == {key: REDACTED}


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


SECRETS = [
    "sk-ant-api03-AbCdEf0123456789_-x",
    "sk-proj-0123456789abcdef",
    "ghp_0123456789abcdefghij0123",
    "github_pat_0123456789abcdefghij0123",
    "glpat-0123456789abcdefghij",
    "xoxb-1234567890-abc",
    "AKIAIOSFODNN7EXAMPLE",
    "AIzaSyA0123456789012345678901234567890",
    "hf_0123456789abcdefghij0123",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("around", ["{}", "the key is {}.", "X={},", '{{"a": "{}"}}', "({})", "a\n{}\nb"])
def test_keys_and_tokens_are_taken_out_wherever_they_stand(secret, around):
    assert redacted(around.format(secret)) == around.format(REDACTED)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Authorization: Bearer abcdef0123456789", f"Authorization: Bearer {REDACTED}"),
        ("x-api-key: hunter2hunter2", f"x-api-key: {REDACTED}"),
        ("password=hunter2!", f"password={REDACTED}"),
        ('{"client_secret": "hunter2!"}', f'{{"client_secret": "{REDACTED}"}}'),
        ("export MY_API_KEY=hunter2!", f"export MY_API_KEY={REDACTED}"),
        ("postgres://me:hunter2@db/x", f"postgres://me:{REDACTED}@db/x"),
        ("access_token: abcdef", f"access_token: {REDACTED}"),
    ],
)
def test_what_follows_the_name_of_a_secret_is_taken_out(text, wanted):
    assert redacted(text) == wanted


def test_a_private_key_is_taken_out_whole_also_where_its_end_is_missing():
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n"
    assert redacted(f"a\n{key}-----END RSA PRIVATE KEY-----\nb") == f"a\n{REDACTED}\nb"
    assert redacted(f"a\n{key}") == f"a\n{REDACTED}"


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens=8192 and 17 tokens",
        "The token is cached, the key to success is sleep.",
        "task-force-members-and-more, ask-questions-first-now",
        "https://example.org:8080/path",
        "def password(self): ...",
        "tokenize basic things",
        "a basic understanding of token authentication",
    ],
)
def test_ordinary_words_stay(text):
    assert redacted(text) == text


def test_a_field_of_a_secrets_name_is_taken_out_whatever_it_holds():
    data = {"password": "x", "apiKey": "y", "headers": {"Authorization": "z"}, "path": "a", "limit": 3}
    clean = {
        "password": REDACTED,
        "apiKey": REDACTED,
        "headers": {"Authorization": REDACTED},
        "path": "a",
        "limit": 3,
    }
    assert without_secrets(data) == clean


def test_a_schema_that_speaks_of_a_password_stays_a_schema():
    schema = {"properties": {"password": {"type": "string"}}, "required": ["password"]}
    schema["$defs"] = {"Token": schema}
    assert without_secrets(schema) == schema
    assert without_secrets({"properties": {"password": "x"}}) == {"properties": {"password": REDACTED}}


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("refresh_token=abcdef", "abcdef"),
        ("GET https://x/a?sig=AbC%2F1&x=1", "AbC%2F1"),
        ("https://b.s3.amazonaws.com/k?X-Amz-Signature=0a1b&X-Amz-Security-Token=zz9&x=1", "0a1b"),
        ("https://x/a?api_key=abc", "abc"),
        ('password = "correct horse battery"', "battery"),
        ("passphrase: 'correct horse battery'", "battery"),
        ('{\\"password\\": \\"hunter2!\\"}', "hunter2!"),
        ("token: abc12345", "abc12345"),
        ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMIK7MDENG", "wJalrXUtnFEMI"),
        ("rk_live_0123456789ab", "0123456789ab"),
        ("Basic QWxhZGRpbjpvcGVu", "QWxhZGRpbjpvcGVu"),
        ("gho_0123456789abcdefghij", "0123456789"),
    ],
)
def test_what_one_of_two_redactors_let_through_is_stopped_by_the_one(text, secret):
    assert secret not in redacted(text)
    assert REDACTED in redacted(text)


_texts = st.lists(
    st.sampled_from(
        [*SECRETS, "password", "Bearer", "token", ":", "=", " ", '"', "abcdef", "[", "]", "\n", "://", "@"]
    )
).map("".join)


@given(_texts)
def test_any_text_that_was_cleaned_once_stays_as_it_is(text):
    once = redacted(text)
    assert redacted(once) == once
