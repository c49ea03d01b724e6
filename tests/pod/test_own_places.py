"""What steers polypod is outside every scope: no tool of a pod reads, writes or finds it, whatever its rules say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from actors.llm.scripted import Reply, ScriptedClient, call, say
from actors.runtime.user_folders import configuration_path, runtime_path, state_path
from actors.sessions.answer_token import answer_token
from actors.system import PodSystem
from protocol.items import ToolResult
from protocol.manifest import PodManifest
from protocol.scope import Rule, Scope


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of all that a user has, polypod's own places among it."""
    for variable in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    for place in (state_path(), configuration_path(), runtime_path()):
        assert place is not None
        place.mkdir(parents=True)
        (place / "needle").write_text("needle")
    answer_token()
    (tmp_path / "polypod.toml").write_text("needle")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "Polypod.TOML").write_text("needle")
    (tmp_path / "work" / "mine.txt").write_text("needle")
    return tmp_path


#: Every place that is polypod's own, below the folder of the fixture.
PLACES: dict[str, Callable[[Path], Path]] = {
    "the database": lambda home: home / "pods.db",
    "its log": lambda home: home / "pods.db-wal",
    "its index": lambda home: home / "pods.db-shm",
    "its writers": lambda home: home / "pods.db.writers" / "log",
    "the folder of sessions": lambda home: home / "pods" / "new.jsonl",
    "the token": lambda home: home / "XDG_STATE_HOME" / "polypod" / "approval-token",
    "the state folder": lambda home: home / "XDG_STATE_HOME" / "polypod" / "needle",
    "the configuration": lambda home: home / "XDG_CONFIG_HOME" / "polypod" / "needle",
    "the sockets": lambda home: home / "XDG_RUNTIME_DIR" / "polypod" / "needle",
    "polypod.toml": lambda home: home / "polypod.toml",
    "polypod.toml below": lambda home: home / "work" / "deep" / "polypod.toml",
    "polypod.toml in another case": lambda home: home / "work" / "Polypod.TOML",
}


def reaching(path: str) -> list[Reply]:
    """One answer for every way to touch a file."""
    return [
        call("read_file", {"path": path}) + call("count_words", {"path": path}),
        call("write_file", {"path": path, "content": "x"}),
        call("edit_file", {"path": path, "old": "needle", "new": "x"}),
        say("done"),
    ]


async def results(home: Path, url: str, *replies: Reply, scope: Scope) -> list[ToolResult]:
    """What becomes of the calls of a pod with that scope, whose store is ``url``."""
    async with PodSystem(url) as system:
        manifest = PodManifest.of(
            pwd=str(home), scope=scope, tools={"builtin": ["files", "search"]}, max_repeats=0
        )
        pod = await system.spawn(manifest, client=ScriptedClient([*replies]))
        await pod.run("go")
        return [item for item in await pod.history() if isinstance(item, ToolResult)]


def whole(home: Path, path: Path) -> Scope:
    """A scope that allows as much as can be said: all, and the place by its name."""
    return Scope((Rule("/", "write"), Rule(str(home), "write"), Rule(str(path), "write")))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("by", ["name", "symlink"])
async def test_no_file_tool_touches_it_whatever_the_scope_says(home: Path, place: str, by: str) -> None:
    path = PLACES[place](home)
    url = f"jsonl:{home / 'pods'}" if place == "the folder of sessions" else f"sqlite:{home / 'pods.db'}"
    named = path
    if by == "symlink":
        named = home / "work" / "link"
        named.symlink_to(path)
    before = path.read_bytes() if path.is_file() and "XDG" in str(path) else None
    found = await results(home, url, *reaching(str(named)), scope=whole(home, path))
    assert len(found) == 4
    for result in found:
        assert result.is_error
        assert result.text.startswith("not allowed to "), result.text
    if before is not None:
        assert path.read_bytes() == before


async def test_the_words_of_a_refusal_say_why(home: Path) -> None:
    scope = Scope.writable(home)
    url = f"sqlite:{home / 'pods.db'}"
    calls = call("read_file", {"path": "pods.db"}) + call("read_file", {"path": "polypod.toml"})
    store, steering = await results(home, url, calls, say("done"), scope=scope)
    assert "pods.db, whatever else it allows" in store.text
    assert "configures polypod" in steering.text


async def test_no_search_finds_it(home: Path) -> None:
    url = f"sqlite:{home / 'pods.db'}"
    looks = [
        call("grep", {"pattern": "needle", "include_ignored": True}),
        call("find_files", {"pattern": "**/*"}),
        call("list_files", {"path": "."}),
        call("list_files", {"path": str(state_path())}),
    ]
    calls = sum(looks[1:], looks[0])
    texts = [each.text for each in await results(home, url, calls, say("done"), scope=Scope.writable(home))]
    assert "mine.txt" in texts[0]
    for own in ("pods.db", "approval-token", "polypod.toml", "Polypod.TOML", "polypod/needle"):
        assert not any(f"{own}\n" in f"{text}\n" or f"{own}:" in text for text in texts), (own, texts)
    assert texts[3].startswith("not allowed to ")


async def test_the_users_own_files_beside_a_store_stay_in_reach(home: Path) -> None:
    url = f"sqlite:{home / 'pods.db'}"
    calls = call("read_file", {"path": "work/mine.txt"}) + call("write_file", {"path": "new", "content": "x"})
    found = await results(home, url, calls, say("done"), scope=Scope.writable(home))
    assert not any(each.is_error for each in found)
