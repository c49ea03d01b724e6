"""``polypod.toml``: found upwards and then in the user's configuration folder, read, or refused with words."""

import os
from pathlib import Path

import pytest
from config_kit import Files

from actors.config.configuration import Configuration
from protocol.config import ChainEntrySection, LocalModelSection
from protocol.errors import ConfigError, ManifestError
from protocol.manifest import PodManifest
from protocol.scope import Rule, Scope

LOCAL = '[local_model]\nendpoint = "http://127.0.0.1:8080/v1"\nmodel = "{}"\n'


def test_the_first_file_upwards_holds_and_behind_it_the_users_own(files: Files):
    assert files.load().files == ()
    files.write_own(LOCAL.format("own") + "[pool]\nlimits = { claude = 2 }\n")
    assert files.load().local_model == LocalModelSection("http://127.0.0.1:8080/v1", "own")
    far = files.write(LOCAL.format("far"))
    assert files.load().files[0].path == far
    near = files.deep.parent / "polypod.toml"
    near.write_text(LOCAL.format("near"))
    found = files.load()
    assert [each.path for each in found.files][:-1] == [near]
    assert found.local_model is not None
    assert found.local_model.model == "near"
    assert found.pool.limits == {"claude": 2}, "a section that the nearest has not is the user's own"


def test_a_nearer_section_stands_whole_in_place_of_another(files: Files):
    files.write_own(LOCAL.format("own"))
    files.write('[local_model]\nendpoint = ""\n')
    assert files.load().local_model is None, "an empty endpoint is not a local model"


def test_the_users_own_file_is_read_once_from_within_its_folder(files: Files):
    own = files.write_own(LOCAL.format("own"))
    found = Configuration.load(own.parent)
    assert [each.is_own for each in found.files] == [True]


def test_what_is_no_file_is_reported_and_waited_for_by_nobody(files: Files):
    (files.project / "polypod.toml").mkdir()
    with pytest.raises(ConfigError, match=r"polypod\.toml: cannot be read: it is a directory"):
        files.load()
    os.mkfifo(files.deep / "polypod.toml")
    with pytest.raises(ConfigError, match=r"polypod\.toml: cannot be read: it is not a regular file"):
        files.load()


def test_the_placeholder_that_confined_commands_need_is_no_configuration(files: Files):
    (files.project / "polypod.toml").mkdir(mode=0o500)
    assert files.load().files == ()
    assert Configuration.load(files.project / "gone").files == ()


def test_each_section_has_what_was_written(files: Files):
    files.write_own(
        LOCAL.format("m")
        + """timeout_seconds = 5
default_temperature = 0.2
api_key = "env:KEY"

[[runner]]
name = "claude"
env = ["GITHUB_TOKEN"]

[[chain]]
name = "cheap"
entries = ["ollama/qwen3", { model = "x/y", tier = "managed", cloud = true }]
warm_url = "http://127.0.0.1:8080"
prefer_warm = true
verifier = { command = ["pytest", "-q"], timeout_seconds = 60 }
"""
    )
    found = files.load()
    local = found.local_model
    assert local is not None
    assert (local.timeout_seconds, local.default_temperature) == (5, 0.2)
    assert local.api_key_env == "KEY"
    runner, chain = found.runner("claude"), found.chain("cheap")
    assert runner is not None
    assert runner.env == ("GITHUB_TOKEN",)
    assert chain.entries == ("ollama/qwen3", ChainEntrySection("x/y", "managed", cloud=True))
    assert chain.verifier is not None
    assert chain.verifier.command == ("pytest", "-q")
    assert chain.prefer_warm
    assert found.runner("codex") is None


WRONG = {
    "[local_modle]": "unknown key 'local_modle' (did you mean 'local_model'?",
    '[model]\nscheme = "offline"': "unknown key 'model' (in polypod.toml, put this section of a manifest in a profile: [profile.N",
    '[local_model]\nendpiont = "x"': "unknown key 'local_model.endpiont' (did you mean 'endpoint'?",
    '[local_model]\nendpoint = "localhost:80"': "local_model.endpoint: expected a URL that begins with http",
    "[local_model]\ntimeout_seconds = nan": "local_model.timeout_seconds: expected more than 0, got nan",
    '[local_model]\napi_key = "env:not a name"': "local_model.api_key: expected env:NAME",
    '[[runner]]\ncommand = ["x"]': "runner[0]: the key 'name' is missing",
    '[[runner]]\nname = "x"\ncommand = "a b"': "runner[0].command: expected a list of strings, got 'a b'",
    '[[runner]]\nname = "x"\n[[runner]]\nname = "x"': "runner[1].name: there is already a runner 'x'",
    '[[chain]]\nname = "x"\nentries = []': "chain[0].entries: expected at least one model",
    '[[chain]]\nname = "x"\nentries = [{ modle = "y" }]': "unknown key 'chain[0].entries[0].modle'",
    '[[chain]]\nname = "x"\nentries = [5]': "chain[0].entries[0]: expected a string or a table with keys model",
    '[[chain]]\nname = "x"\nentries = ["y"]\nverifier = {}': "chain[0].verifier: expected a command, or a mod",
    '[pool]\nlimits = { claude = "2" }': "pool.limits.claude: expected a whole number, got '2'",
    "[pool]\nlimits = { claude = 0 }": "pool.limits.claude: expected at least 1, got 0",
    "[pool]\nclassifier = 5": "pool.classifier: expected true or false or a list of strings, got 5",
    "[profile.x]\nmax_stepz = 5": "profile.x: unknown key 'max_stepz' (did you mean 'max_steps'?",
    '[profile.x]\nmax_steps = "5"': "profile.x: worker.max_steps: expected a whole number, got '5'",
    "[profile]\nx = 5": "profile.x: expected a table, got 5",
    '[[approval]]\ntool = ""\npolicy = "ask"': "approval[0].tool: expected the name of a tool",
    "[local_model": "not valid TOML",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_said_with_file_and_key(files: Files, text: str):
    path = files.write(text)
    with pytest.raises(ConfigError) as caught:
        files.load()
    assert str(caught.value).startswith(f"{path}: ")
    assert WRONG[text] in str(caught.value)
    assert isinstance(caught.value, ManifestError)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"x" * (2 << 20)], ids=["not UTF-8", "too large"])
def test_what_is_no_text_of_that_kind_is_refused(files: Files, data: bytes):
    (files.project / "polypod.toml").write_bytes(data)
    with pytest.raises(ConfigError, match=r"polypod\.toml: is"):
        files.load()


def test_a_key_is_in_no_error_and_no_repr(files: Files):
    files.write_own('[local_model]\nendpoint = "http://h/v1"\napi_key = "sesame"\n')
    assert "sesame" not in repr(files.load().local_model)
    for text in (
        'api_key = ["sesame"]',
        'api_key = "env:sesame!"',
        'api_key = "sesame"\nmodle = ""',
        'endpoint = "sesame"',
    ):
        files.write(f"[local_model]\n{text}\n")
        with pytest.raises(ConfigError) as caught:
            files.load()
        assert "sesame" not in str(caught.value)


def test_a_profile_says_what_is_otherwise_and_all_else_stays(files: Files):
    files.write_own(
        """[profile.careful]
model = "ollama/qwen3"
max_steps = 200
system_prompt = "Be careful."
tools = { builtin = ["files"] }
[profile.careful.scope]
allow = [{ target = "notes", permission = "read" }]
deny = [{ target = "/secret", permission = "read" }]
"""
    )
    denied = Scope(allow=(Rule("/work", "write"),), deny=(Rule("/work/x", "write"),))
    before = PodManifest.of(
        name="mine", model="openai/x", temperature=0.5, max_steps=7, max_tokens=9, scope=denied, pwd="/work"
    )
    after = files.load().with_profile(before, "careful")
    folder = files.load().files[0].path.parent
    assert after.model == PodManifest.of(model="ollama/qwen3").model, "nothing of the other model is left"
    assert (after.worker.max_steps, after.worker.max_tokens) == (200, 9), "also what is the default is said"
    assert (after.pod.name, after.pod.pwd, after.pod.system_prompt) == ("mine", "/work", "Be careful.")
    assert after.scope.allow == (Rule(str(folder / "notes"), "read"),), "relative to the file"
    assert after.scope.deny == (Rule("/secret", "read"), Rule("/work/x", "write")), "what is denied stays so"


def test_a_profile_or_chain_that_is_not_there_is_named_with_those_that_are(files: Files):
    with pytest.raises(
        ConfigError, match=r"no profile 'fast': no polypod\.toml was found here or in a folder above"
    ):
        files.load().with_profile(PodManifest(), "fast")
    path = files.write("[profile.fast]\nmax_steps = 5\n[[chain]]\nname = 'a'\nentries = ['x']\n")
    with pytest.raises(ConfigError) as caught:
        files.load().with_profile(PodManifest(), "fsat")
    assert str(caught.value) == f"there is no profile 'fsat' in {path} (did you mean 'fast'? there is fast)"
    with pytest.raises(ConfigError, match="there is no chain 'b'"):
        files.load().chain("b")


def test_a_file_that_may_not_be_read_is_named(files: Files, tmp_path: Path):
    path = files.write("")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("who runs this may read everything")
    with pytest.raises(ConfigError, match=rf"{path}: cannot be read"):
        files.load()
