"""``[[tools.mcp]]``: what a manifest may say of servers, and what of it a session keeps."""

from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from protocol.errors import ManifestError
from protocol.manifest import PodManifest, without_secrets_in
from protocol.mcp import McpServer, expand, header_value
from protocol.wire import encode

TEXT = """
[[tools.mcp]]
name = "time"
command = "uvx 'mcp server' --local"
cwd = "sub"
env = { ZONE = "${ZONE:-UTC}", TOKEN = "abc" }
allow = ["get_*"]

[[tools.mcp]]
name = "web"
url = "https://example.com/mcp?key=abc"
headers_env = { Authorization = "Bearer ${TOKEN}", X-Key = "KEY" }
timeout = 5
concurrency = "exclusive"
approval = "ask"
"""


def test_a_manifest_names_servers_and_paths_are_those_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(TEXT)
    time, web = PodManifest.load(tmp_path / "m.toml").tools.mcp
    assert time.words == ("uvx", "mcp server", "--local")
    assert time.cwd == f"{tmp_path}/sub"
    assert (web.timeout, web.concurrency, web.approval) == (5.0, "exclusive", "ask")
    assert PodManifest.of(mcp=[time, web]).tools.mcp == (time, web)


def test_a_session_keeps_no_values_of_variables_and_no_query() -> None:
    manifest = PodManifest.from_toml(TEXT)
    time, web = manifest.without_secrets().tools.mcp
    assert time.env == {"ZONE": "${ZONE}", "TOKEN": "${TOKEN}"}
    assert web.url == "https://example.com/mcp?…"
    assert web.headers_env == {"Authorization": "Bearer ${TOKEN}", "X-Key": "KEY"}
    assert bytes(without_secrets_in(Raw(encode(manifest)))) == encode(manifest.without_secrets())
    safe = Raw(encode(manifest.without_secrets()))
    assert without_secrets_in(safe) is safe


def test_the_approval_of_a_server_is_a_rule_behind_those_of_the_manifest() -> None:
    manifest = PodManifest.of(
        mcp=[McpServer("a", command=("x",), approval="allow"), McpServer("b", command=("x",))],
        approval=[{"tool": "a__write", "policy": "ask"}],
    )
    assert [(each.tool, each.policy) for each in manifest.approval_rules] == [
        ("a__write", "ask"),
        ("a__*", "allow"),
    ]


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ({"command": ["x"]}, "tools.mcp[0]: the key 'name' is missing"),
        ({"name": "a__b", "command": ["x"]}, "tools.mcp[0].name: expected 1 to 32 letters"),
        ({"name": "1a", "command": ["x"]}, "tools.mcp[0].name"),
        ({"name": "a_", "command": ["x"]}, "tools.mcp[0].name"),
        ({"name": "a"}, "tools.mcp[0]: expected either a command or a url"),
        ({"name": "a", "command": ["x"], "url": "http://x"}, "expected either a command or a url"),
        ({"name": "a", "command": "x 'y"}, "tools.mcp[0].command: cannot be split"),
        ({"name": "a", "command": 5}, "tools.mcp[0].command: expected a list of strings or a string, got 5"),
        ({"name": "a", "command": ["x"], "headers_env": {"A": "B"}}, "only a server with a url has headers"),
        (
            {"name": "a", "command": ["x"], "env": {"A=B": "c"}},
            "tools.mcp[0].env: expected names of variables",
        ),
        ({"name": "a", "command": ["x"], "timeout": 0}, "tools.mcp[0].timeout: expected more than 0"),
        ({"name": "a", "command": ["x"], "deny": [""]}, "allow and deny"),
        ({"name": "a", "command": ["x"], "aproval": "ask"}, "unknown key 'tools.mcp[0].aproval'"),
        ({"name": "a", "command": ["x"], "approval": "maybe"}, "tools.mcp[0].approval: expected one of"),
        ({"name": "a", "url": "ftp://x/y"}, "tools.mcp[0].url: expected a URL like"),
        ({"name": "a", "url": "https://me:s3cret@x/y"}, "https://…@x/y"),
        ({"name": "a", "url": "http://x", "env": {"A": "b"}}, "only a server with a command has env and cwd"),
        ({"name": "a", "url": "http://x", "headers_env": {"A b": "B"}}, "'A b' is not a valid header name"),
        (
            {"name": "a", "url": "http://x", "headers_env": {"A": "Bearer s3cret"}},
            "headers_env.A: expected the name",
        ),
    ],
)
def test_what_is_wrong_is_named(server: dict[str, Any], words: str) -> None:
    with pytest.raises(ManifestError) as caught:
        PodManifest.of(mcp=[server])
    assert words in caught.value.message
    assert "s3cret" not in str(caught.value)


def test_two_servers_have_two_names() -> None:
    with pytest.raises(ManifestError, match=r"tools.mcp\[1\].name: there is already a server 'a'"):
        PodManifest.of(mcp=[{"name": "a", "command": ["x"]}, {"name": "a", "command": ["y"]}])


def test_variables_are_expanded_as_other_clients_do_it() -> None:
    variables = {"A": "1", "EMPTY": ""}
    assert expand("x${A}y${env:A}z${B:-2}${EMPTY:-3}${C:-}$A", variables) == "x1y1z2$A"
    assert header_value("A", variables) == "1"
    assert header_value("Bearer ${A}", variables) == "Bearer 1"
    with pytest.raises(ManifestError, match="the variable B is not set"):
        expand("${B}", variables)
    with pytest.raises(ManifestError, match=r"\$\{input:key\} is not an environment variable"):
        expand("${input:key}", variables)
