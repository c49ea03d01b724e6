"""Secrets do not get into what is recorded, and the rest of a text does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.llm.redaction import REDACTED, cleaned, without_secrets

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
    assert without_secrets(around.format(secret)) == around.format(REDACTED)


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
    assert without_secrets(text) == wanted


def test_a_private_key_is_taken_out_whole_also_where_its_end_is_missing():
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n"
    assert without_secrets(f"a\n{key}-----END RSA PRIVATE KEY-----\nb") == f"a\n{REDACTED}\nb"
    assert without_secrets(f"a\n{key}") == f"a\n{REDACTED}"


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
    assert without_secrets(text) == text


def test_a_field_of_a_secrets_name_is_taken_out_whatever_it_holds():
    data = {"password": "x", "api_key": "y", "headers": {"Authorization": "z"}, "path": "a", "limit": 3}
    assert cleaned(data) == {
        "password": REDACTED,
        "api_key": REDACTED,
        "headers": {"Authorization": REDACTED},
        "path": "a",
        "limit": 3,
    }


def test_a_schema_that_speaks_of_a_password_stays_a_schema():
    schema = {"properties": {"password": {"type": "string"}}, "required": ["password"]}
    assert cleaned(schema) == schema


_texts = st.lists(
    st.sampled_from(
        [*SECRETS, "password", "Bearer", "token", ":", "=", " ", '"', "abcdef", "[", "]", "\n", "://", "@"]
    )
).map("".join)


@given(_texts)
def test_what_was_cleaned_once_stays_as_it_is(text):
    once = without_secrets(text)
    assert without_secrets(once) == once
