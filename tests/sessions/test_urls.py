"""Store URLs: each kind opens, and what is wrong with a URL is said."""

from __future__ import annotations

import pytest

from actors.sessions.jsonl.store import JsonLinesStore
from actors.sessions.memory.store import MemoryStore
from actors.sessions.sqlite.store import SQLiteStore
from actors.sessions.urls import open_store
from protocol.errors import ManifestError, StoreError
from protocol.manifest import PodManifest


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
        ("pods.db", "is not a store"),
        ("redis:localhost", "no store of type 'redis'"),
        ("postgresql://host/db", "no store for PostgreSQL"),
        ("sqlite:", "has no path"),
        ("sqlite::memory:", "for sessions in memory, use memory:"),
        ("memory:here", "no path"),
        ("sqlite:x.db?durability=maybe", "process or power, not 'maybe'"),
        ("sqlite:x.db?mode=fast", "no option 'mode'"),
        ("", "is not a store"),
    ],
)
def test_a_wrong_url_is_reported_with_the_right_ones(url, says):
    with pytest.raises(StoreError, match=says) as caught:
        open_store(url)
    assert "sqlite:FILE" in str(caught.value)


@pytest.mark.parametrize("place", ["/", "a\0b", "\ud800", "~nobody-of-that-name/x"])
@pytest.mark.parametrize("kind", ["sqlite", "jsonl"])
def test_a_place_that_can_be_none_is_an_error_of_the_store(kind, place):
    with pytest.raises(StoreError, match="not a valid path for a store"):
        open_store(f"{kind}:{place}")


def test_a_working_directory_that_is_gone_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    for kind in ("sqlite", "jsonl"):
        with pytest.raises(StoreError, match="the working directory no longer exists"):
            open_store(f"{kind}:pods")
    for made in (PodManifest.of, lambda: PodManifest.from_toml("")):
        with pytest.raises(ManifestError, match="the working directory no longer exists"):
            made()
