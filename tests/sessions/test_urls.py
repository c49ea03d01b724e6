"""Store URLs: each kind opens, and what is wrong with a URL is said."""

from __future__ import annotations

import pytest

from actors.sessions.jsonl.store import JsonLinesStore
from actors.sessions.memory.store import MemoryStore
from actors.sessions.sqlite.store import SQLiteStore
from actors.sessions.urls import open_store
from protocol.errors import StoreError


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("memory:", MemoryStore),
        ("sqlite:{}/pods.db", SQLiteStore),
        ("sqlite://{}/pods.db?durability=power", SQLiteStore),
        ("jsonl:{}/pods", JsonLinesStore),
        ("jsonl:{}/pods?durability=process", JsonLinesStore),
    ],
)
def test_a_url_opens_its_kind_of_store(tmp_path, url, kind):
    store = open_store(url.format(tmp_path))
    assert type(store) is kind
    store.close()


def test_a_relative_file_is_below_the_working_directory_and_a_tilde_is_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    open_store("sqlite:pods.db").close()
    open_store("sqlite:~/pods.db").close()
    assert (tmp_path / "pods.db").exists()
    assert (tmp_path / "home" / "pods.db").exists()


def test_a_store_says_its_url(tmp_path):
    for url in ("memory:", f"sqlite:{tmp_path}/a.db", f"jsonl:{tmp_path}/b?durability=power"):
        store = open_store(url)
        assert store.url == url
        store.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("pods.db", "is no store"),
        ("redis:localhost", "no kind of store called 'redis'"),
        ("postgresql://host/db", "no store for PostgreSQL"),
        ("sqlite:", "does not say where"),
        ("sqlite::memory:", "sessions in memory are memory:"),
        ("memory:here", "no place"),
        ("sqlite:x.db?durability=maybe", "process or power, not 'maybe'"),
        ("sqlite:x.db?mode=fast", "no option 'mode'"),
        ("", "is no store"),
    ],
)
def test_a_wrong_url_is_reported_with_the_right_ones(url, says):
    with pytest.raises(StoreError, match=says) as caught:
        open_store(url)
    assert "sqlite:FILE" in str(caught.value)
