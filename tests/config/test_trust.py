"""What a project's file has polypod start or send needs one look by a person, and another once it changes."""

import stat
from pathlib import Path

import pytest
from config_kit import Files

from actors.config.trust import distrust, trust
from actors.runtime.user_folders import state_path
from protocol.approval import ApprovalRule
from protocol.errors import NotTrusted
from protocol.manifest import PodManifest

CHAIN = '[[chain]]\nname = "c"\nentries = ["x"]\n'
RUNNER = '[[runner]]\nname = "mine"\ncommand = ["make", "agent"]\n'

#: What a file may say, and the words for it; None where it needs no look.
NEEDS = {
    RUNNER: "runner 'mine' starts: make agent",
    '[[runner]]\nname = "claude"\nargs = ["--yes"]': "runner 'claude' starts: claude --yes",
    '[[runner]]\nname = "claude"\nenv = ["TOKEN"]': "runner 'claude' gets the variables TOKEN",
    '[[runner]]\nname = "claude"\nmax_retries = 2': None,
    '[[chain]]\nname = "c"\nentries = ["x"]\nverifier = { command = ["./ok"] }': "checks answers by: ./ok",
    '[[chain]]\nname = "c"\nentries = ["x"]': None,
    '[pool]\nclassifier = ["gemini", "-p"]': "the pool chooses runners by: gemini -p",
    '[pool]\nrunners = ["claude", "local"]': None,
    '[pool]\nrunners = ["acp:make agent"]': "the pool starts: make agent",
    '[local_model]\nendpoint = "http://127.0.0.1:1/v1"': None,
    '[local_model]\nendpoint = "http://127.example.com/v1"': "on another machine, http://127.example.com/v1",
    '[local_model]\nendpoint = "http://a:b@h/v1"': "the local model is on another machine, http://…@h/v1",
    '[local_model]\nendpoint = "http://localhost/v1"\napi_key = "env:AWS"': "receives the key in AWS",
    f'{CHAIN}warm_url = "http://localhost:1"': None,
    '[[chain]]\nname = "c"\nentries = [{ model = "openai/x", base_url = "http://127.0.0.1:1/v1" }]': None,
    '[[chain]]\nname = "c"\nentries = [{ model = "openai/x", base_url = "http://a:b@h/v1" }]': (
        "chain 'c' uses a model on another machine, http://…@h/v1"
    ),
    '[[chain]]\nname = "c"\nentries = [{ model = "openai/x", api_key_env = "AWS" }]': (
        "chain 'c' sends the key in AWS to its model"
    ),
    f'{CHAIN}warm_url = "http://a:b@h"': "chain 'c' asks another machine, http://…@h, which models are loaded",
    '[[approval]]\ntool = "shell"\npolicy = "allow"': "every pod has the rule allow 'shell'",
    '[[approval]]\ntool = "shell"\npolicy = "deny"': None,
    '[approvals]\ndefault = "ask"': None,
    '[approvals]\ndefault = "allow"': 'every pod has [approvals] default = "allow"',
    '[profile.p]\napprovals = { default = "allow" }': "profile 'p' has [approvals] default = \"allow\"",
    '[profile.p]\nbuiltin = ["fetch"]': "profile 'p' has the tool fetch, which accesses the network",
    '[profile.p]\nmodel = "ollama/x"\nmax_steps = 3': None,
    '[profile.p]\nbase_url = "http://h/v1"': "profile 'p' uses a model on another machine, http://h/v1",
    '[profile.p]\napi_key_env = "AWS"': "profile 'p' sends the key in AWS",
    '[profile.p.model.extra_headers]\nX-T = "${AWS}"': "profile 'p' sends its model the variables AWS",
    '[profile.p]\nmodules = ["tools.py"]': "profile 'p' runs the Python code in ",
    '[profile.p]\nmcp = [{ name = "m", command = ["npx", "m"] }]': "profile 'p' starts the MCP server 'm': npx m",
    '[profile.p]\nmcp = [{ name = "m", url = "http://h/?key=k" }]': "MCP server 'm' at http://h/?…",
    '[profile.p]\nsandbox = { mode = "off" }': "profile 'p' runs commands unconfined",
    "[profile.p]\nsandbox = { network = true }": "profile 'p' lets commands reach the network",
    "[profile.p]\nallow_private = true": "profile 'p' lets the tool fetch access",
    '[profile.p]\napproval = [{ tool = "x", policy = "allow" }]': "profile 'p' has the rule allow 'x'",
    '[profile.p]\nscope = { allow = [{ target = "src", permission = "write" }] }': None,
    '[profile.p]\nscope = { allow = [{ target = "../x", permission = "write" }] }': "profile 'p' may write ",
    '[profile.p]\nscope = { allow = [{ target = "/etc", permission = "read" }] }': "may read /etc",
    '[profile.p]\npwd = "/"': "profile 'p' works in /",
    '[profile.p]\nmemory = { folder = "../notes" }': "profile 'p' keeps its memory in ",
    '[profile.p]\nmemory = { folder = "notes" }': None,
}


@pytest.mark.parametrize("text", NEEDS)
def test_a_project_is_followed_by_itself_only_where_it_starts_and_sends_nothing(files: Files, text: str):
    files.write(text)
    file = files.load().files[0]
    words = NEEDS[text]
    if words is None:
        assert file.needs == ()
        assert file.is_trusted
        return
    assert any(words in each for each in file.needs), file.needs
    with pytest.raises(NotTrusted) as caught:
        file.trusted()
    assert caught.value.hint is not None
    assert "polypod config trust" in caught.value.hint
    files.write_own(text)
    assert files.load().files[1].is_trusted, "the user's own file is trusted"


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ('scope = { allow = [{ target = "way/x", permission = "write" }] }', "may write {}/x"),
        ('pwd = "way"', "works in {}"),
        ('memory = { folder = "way" }', "keeps its memory in {}"),
    ],
)
def test_a_symlink_of_a_project_leads_out_of_it_no_more_than_a_path_does(
    files: Files, tmp_path: Path, profile: str, words: str
):
    (files.project / "way").symlink_to(tmp_path / "elsewhere")
    files.write(f"[profile.p]\n{profile}\n")
    (need,) = files.load().files[0].needs
    assert need == f"profile 'p' {words.format(tmp_path / 'elsewhere')}"


def test_a_symlink_that_stays_within_the_project_needs_no_look(files: Files):
    (files.project / "way").symlink_to("src")
    files.write('[profile.p]\nscope = { allow = [{ target = "way", permission = "write" }] }\n')
    assert files.load().files[0].is_trusted


def test_one_look_is_enough_until_a_byte_changes(files: Files):
    path = files.write(RUNNER)
    with pytest.raises(NotTrusted, match="belongs to a project"):
        files.load().runner("mine")
    trust(path, files.load().files[0].digest)
    assert files.load().runner("mine") is not None
    assert files.load().runner("other") is None
    path.write_text(RUNNER + "\n")
    with pytest.raises(NotTrusted, match="has changed since it was reviewed"):
        files.load().runner("mine")
    trust(path, files.load().files[0].digest)
    path.write_text(RUNNER)
    with pytest.raises(NotTrusted):
        files.load().runner("mine")
    path.write_text(RUNNER + "\n")
    assert files.load().runner("mine") is not None
    assert distrust(path)
    assert not distrust(path)
    with pytest.raises(NotTrusted):
        files.load().runner("mine")


def test_what_was_looked_at_in_one_place_is_not_trusted_in_another(files: Files):
    digest = files.load().files
    path = files.write(RUNNER)
    digest = files.load().files[0].digest
    trust(path, digest)
    other = files.deep / "polypod.toml"
    other.write_text(RUNNER)
    with pytest.raises(NotTrusted):
        files.load().runner("mine")


def test_what_is_trusted_is_kept_for_the_user_alone(files: Files):
    path = files.write(RUNNER)
    trust(path, files.load().files[0].digest)
    folder = state_path() / "trusted"
    marks = list(folder.iterdir())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(each.stat().st_mode) for each in marks] == [0o600]
    assert Path(marks[0].read_text().strip()) == path


def test_what_asks_and_denies_holds_at_once_and_what_allows_waits_for_the_look(files: Files):
    own = ApprovalRule("fetch", "allow")
    files.write_own('[[approval]]\ntool = "fetch"\npolicy = "allow"\n[approvals]\ntimeout = 5\n')
    path = files.write(
        '[[approval]]\ntool = "shell"\npolicy = "deny"\n[[approval]]\ntool = "x"\npolicy = "allow"\n'
    )
    manifest, notes = files.load().with_approvals(PodManifest())
    assert manifest.approval == (ApprovalRule("shell", "deny"), own)
    assert manifest.approvals.timeout == 5
    assert len(notes) == 1
    assert str(path) in notes[0]
    assert "config trust" in notes[0]
    trust(path, files.load().files[0].digest)
    manifest, notes = files.load().with_approvals(PodManifest.of(approval=[ApprovalRule("mine", "ask")]))
    named = [each.tool for each in manifest.approval]
    assert named == ["mine", "shell", "x", "fetch"]
    assert not notes


@pytest.mark.parametrize(
    ("own", "project", "looked_at", "holds"),
    [
        ("deny", "ask", False, "deny"),
        ("ask", "allow", False, "ask"),
        ("ask", "allow", True, "allow"),
        ("allow", "ask", False, "ask"),
        (None, "deny", False, "deny"),
    ],
)
def test_a_project_makes_nothing_less_strict_than_the_user_has_it_without_a_look(
    files: Files, own: str | None, project: str, looked_at: bool, holds: str
):
    files.write_own("" if own is None else f'[approvals]\ndefault = "{own}"\n')
    path = files.write(f'[approvals]\ndefault = "{project}"\n')
    if looked_at:
        trust(path, files.load().files[0].digest)
    manifest, _ = files.load().with_approvals(PodManifest())
    assert manifest.approvals.default == holds
