"""URLs as they are recorded and shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.manifest import PodManifest
from protocol.urls import hides_credentials, without_secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host:1/v1", "http://host:1/v1"),
        ("http://user:pw@host:1/v1", "http://…@host:1/v1"),
        ("http://token@host/v1", "http://…@host/v1"),
        ("http://user:p@w@host/v1", "http://…@host/v1"),
        ("http://user:p/w@host/v1", "http://…@host/v1"),
        ("http://user:p?w@host/v1", "http://…"),
        ("http://user:p#w@host/v1", "http://…"),
        ("http://host/v1?api_key=pw", "http://host/v1?…"),
        ("http://host/v1?key=pw#pw", "http://host/v1?…"),
        ("http://host/v1#pw", "http://host/v1#…"),
        ("http://host/v1?a@b=pw", "http://…"),
        ("//user:pw@host/v1", "//…@host/v1"),
        ("user:pw@host/v1", "…@host/v1"),
        ("user:pw?x@host", "…"),
        ("https:/user:pw@host/v1", "…@host/v1"),
        ("HTTPS://user:pw@[::1]:8/v1", "HTTPS://…@[::1]:8/v1"),
        ("http://user:pw\n@host/v1", "http://…@host/v1"),
        ("", ""),
    ],
)
def test_what_may_be_secret_in_a_url_is_hidden(url, shown):
    assert without_secrets(url) == shown


_SAFE = st.text("abcXYZ019.-:/", max_size=8)
_ANY = st.text("ab:/@?#&=[]% …", max_size=12)


@given(_SAFE, _ANY, _ANY)
def test_no_password_and_no_query_is_left_whatever_stands_around_it(before, around, more):
    secret = "s3cret-Word"
    for url in (
        f"http://{around}{secret}{more}@{before}/v1",
        f"{before}{around}:{secret}@{more}",
        f"http://{before}?{around}={secret}{more}",
        f"http://{before}#{secret}",
    ):
        assert secret not in without_secrets(url)
        assert without_secrets(without_secrets(url)) == without_secrets(url)


def test_a_manifest_is_recorded_without_credentials_and_says_that_there_were_some():
    manifest = PodManifest.of(model="openai/m", base_url="http://user:pw@host/v1", max_tokens=5)
    recorded = manifest.without_secrets()
    assert recorded.model.base_url == "http://…@host/v1"
    assert hides_credentials(recorded.model.base_url)
    assert recorded.replace(model=manifest.model) == manifest
    assert recorded.without_secrets() is recorded
