"""Manifests: what people write, and what they learn when they wrote it wrong."""

from pathlib import Path

import pytest
from hypothesis import given
from protocol_strategies import structs

from protocol.errors import ManifestError
from protocol.manifest import BudgetSection, PodManifest, WorkerSection
from protocol.scope import Rule, Scope

FULL = """
[pod]
name = "reviewer"
pwd = "work"
system_prompt = "Be brief."

[model]
scheme = "ollama"
model_id = "qwen3"
temperature = 0

[worker]
max_steps = 12

[compaction]
compact_threshold = 0

[budget]
tokens = 200_000
seconds = 1.5

[tools]
builtin = ["files", "grep"]

[[scope.allow]]
target = "src"
permission = "write"

[[scope.deny]]
target = "/etc"
recursive = false
"""

WRONG = {
    '[[mcp]]\nname = "x"': ["unknown key 'mcp'", "it is a key of [tools]"],
    "podd = 1": ["unknown key 'podd'", "did you mean 'pod'?", "scope"],
    '[pod]\nnam = "x"': ["unknown key 'pod.nam'", "did you mean 'name'?", "keys of [pod]: name, pwd"],
    "[pod]\nname = 3": ["pod.name: expected a string, got 3"],
    "pod = " + "[" * 5000: ["cannot be read: its lists or tables are nested too deeply"],
    "pod = " + "9" * 5000: ["cannot be read: a number has too many digits"],
    '[pod]\npwd = "a\\u0000b"': ["pod.pwd: expected a path, got", "which is not a valid path"],
    '[memory]\nfolder = "a\\u0000b"': ["memory.folder: expected a path"],
    '[scope]\nallow = [{ target = "a\\u0000b", permission = "read" }]': ["scope: expected a path"],
    '[tools]\nmodules = ["a\\u0000b.py"]': ["tools.modules: expected a path"],
    "pod = 3": ["pod: expected a table with keys name, pwd"],
    '[model]\ntemperature = "hot"': ["model.temperature: expected a number, got 'hot'"],
    '[model]\ncontext_window = "128k"': ["model.context_window: expected a whole number, got '128k'"],
    '[memory]\nschedule = "never"': ["memory.schedule: expected one of 'after_run', 'manual', got 'never'"],
    "[restart]\npolicy = 'often'": ["restart.policy: expected one of", "got 'often'"],
    "[restart]\nmax_restarts = -1": ["restart.max_restarts: expected 0 or more, got -1"],
    "[restart]\nwindow_seconds = 0.0": ["restart.window_seconds: expected more than 0, got 0.0"],
    "[restart]\nidle_seconds = 0.0": ["restart.idle_seconds: expected more than 0, got 0.0"],
    "[memory]\nschedule = 1": ["memory.schedule: expected one of 'after_run', 'manual', got 1"],
    '[[scope.allow]]\ntarget = "x"\npermission = "exec"': [
        "scope.allow[0].permission: expected one of 'read', 'write', got 'exec'"
    ],
    '[[scope.deny]]\ntargt = "x"': ["unknown key 'scope.deny[0].targt'", "did you mean 'target'?", "[[scope.deny]]"],
    '[[scope.allow]]\npermission = "read"': ["scope.allow[0]: the key 'target' is missing"],
    '[[scope.allow]]\ntarget = ""': ["scope: a rule's target is empty"],
    "[scope]\nallow = 3": ["scope.allow: expected a list of tables, got 3"],
    '[tools]\nbuiltin = "files"': ["tools.builtin: expected a list of strings, got 'files'"],
    '[tools]\nbuiltin = ["files", 1]': ["tools.builtin[1]: expected a string, got 1"],
    "[budget]\ntokens = true": ["budget.tokens: expected a whole number, got true"],
    "[budget]\nseconds = nan": ["budget.seconds: expected 0 or more, got nan"],
    "[budget]\ncost_usd = inf": ["budget.cost_usd: expected 0 or more, got inf"],
    "[worker]\nmax_steps = 0": ["worker.max_steps: expected at least 1, got 0"],
    '[pod]\nname = "a b"': ["pod.name: expected 1 to 254 letters", "got 'a b'"],
    "x = = 1": ["not valid TOML", "line 1"],
}  # fmt: skip


def test_a_full_manifest_is_read_as_it_is_written(tmp_path: Path):
    path = tmp_path / "pod.toml"
    path.write_text(FULL)
    manifest = PodManifest.load(path)
    assert manifest.name == "reviewer"
    assert (manifest.model.scheme, manifest.model.model_id, manifest.model.temperature) == (
        "ollama",
        "qwen3",
        0,
    )
    assert manifest.worker == WorkerSection(max_steps=12)
    assert manifest.budget == BudgetSection(tokens=200_000, seconds=1.5)
    assert manifest.tools.builtin == ("files", "grep")
    assert manifest.compaction.compact_threshold == 0
    assert manifest.compaction.compact_request_threshold is None


def test_relative_paths_of_a_file_are_relative_to_the_file(tmp_path: Path):
    path = tmp_path / "pod.toml"
    path.write_text(FULL)
    manifest = PodManifest.load(path)
    assert manifest.pod.pwd == str(tmp_path / "work")
    assert manifest.scope.allow == (Rule(str(tmp_path / "src"), "write"),)
    assert manifest.scope.deny == (Rule("/etc", recursive=False),)


def test_relative_paths_of_text_are_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    manifest = PodManifest.from_toml(FULL)
    assert manifest.pod.pwd == str(tmp_path / "work")
    assert manifest.scope.allow[0].target == str(tmp_path / "src")


def test_a_pod_without_a_directory_works_where_its_manifest_lies(tmp_path: Path):
    path = tmp_path / "pod.toml"
    path.write_text("")
    assert Path(PodManifest.load(path).pod.pwd) == tmp_path


def test_no_scope_is_legal_and_allows_nothing():
    assert PodManifest.from_toml("").scope == Scope()
    assert Scope().permission(Path("/")) is None


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_manifest_names_file_key_and_what_was_expected(text: str, tmp_path: Path):
    path = tmp_path / "pod.toml"
    path.write_text(text)
    with pytest.raises(ManifestError) as caught:
        PodManifest.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    for words in WRONG[text]:
        assert words in str(caught.value)


def test_a_key_pasted_where_its_variable_belongs_is_not_repeated():
    with pytest.raises(
        ManifestError, match="api_key_env: expected the name of an environment variable"
    ) as caught:
        PodManifest.from_toml('[model]\napi_key_env = "sk-secret-1"')
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ManifestError, match=r"none\.toml: cannot be read: No such file"):
        PodManifest.load(tmp_path / "none.toml")


def test_a_file_that_is_no_text_is_named(tmp_path: Path):
    path = tmp_path / "pod.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match=r"pod\.toml: is not UTF-8 text") as caught:
        PodManifest.load(path)
    assert "save this file as UTF-8" in (caught.value.hint or "")


def test_a_text_that_is_no_toml_has_a_hint():
    with pytest.raises(ManifestError) as caught:
        PodManifest.from_toml("name = reviewer")
    assert "put strings in quotes" in (caught.value.hint or "")


def test_the_mark_that_windows_writes_before_a_text_does_no_harm(tmp_path: Path):
    path = tmp_path / "pod.toml"
    path.write_bytes(b'\xef\xbb\xbf[pod]\nname = "a"\n')
    assert PodManifest.load(path).name == "a"


def test_a_manifest_from_python_takes_keys_of_any_section():
    manifest = PodManifest.of(
        name="a",
        model="ollama/library/qwen3:4b",
        base_url="http://h/v1",
        max_steps=5,
        compact_threshold=9,
        pwd="/tmp",
    )
    assert (manifest.model.scheme, manifest.model.model_id) == ("ollama", "library/qwen3:4b")
    assert manifest.model.base_url == "http://h/v1"
    assert manifest.worker.max_steps == 5
    assert manifest.compaction.compact_threshold == 9
    assert manifest.pod.pwd == "/tmp"


def test_a_manifest_from_python_takes_whole_sections():
    scope = Scope.writable("/data")
    manifest = PodManifest.of(scope=scope, tools={"builtin": ["files"]}, worker=WorkerSection(max_steps=3))
    assert manifest.scope == scope
    assert manifest.tools.builtin == ("files",)
    assert manifest.worker.max_steps == 3


def test_a_setting_from_python_joins_the_model_that_was_named():
    manifest = PodManifest.of(model="openai/gpt", temperature=0.5)
    assert (manifest.model.model_id, manifest.model.temperature) == ("gpt", 0.5)


def test_a_model_that_cannot_be_encoded_is_an_error_of_the_manifest():
    for settings in ({"model": "ollama/\ud800"}, {"model": "openai/x", "base_url": "http://\udc00/"}):
        with pytest.raises(ManifestError, match="model: a string contains half a character"):
            PodManifest.of(**settings)


def test_the_model_from_python_may_be_a_whole_section_too():
    manifest = PodManifest.of(model={"scheme": "openai", "model_id": "m"}, base_url="http://h/v1")
    assert (manifest.model.scheme, manifest.model.base_url) == ("openai", "http://h/v1")
    assert PodManifest.of(model=manifest.model).model == manifest.model


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": 5, "base_url": "http://h"}, "model: expected a table with keys scheme"),
        ({"worker": 5, "max_steps": 2}, "worker: expected a table with keys max_tokens"),
        ({"scope": object()}, "scope: expected a table"),
        ({"max_steps": object()}, "worker.max_steps: expected a whole number"),
        ({"max_stepz": 1}, "did you mean 'max_steps'?"),
        ({"instructions": "x"}, "did you mean 'system_prompt'?"),
        ({"max_turns": 1}, "did you mean 'max_steps'?"),
        ({"budget": {"dollars": 1}}, "did you mean 'cost_usd'?"),
        ({"tools": [len]}, "pass functions to spawn(tools="),
        ({"scope": "."}, "write Scope.readable"),
        ({"max_steps": "5"}, "worker.max_steps: expected a whole number, got '5'"),
        ({"tools": ["files"]}, "tools: expected a table"),
        ({"pwd": 3}, "pod.pwd: expected a string, got 3"),
        ({"output_cap": None}, "tools.output_cap: expected a whole number, got nothing"),
    ],
)
def test_a_wrong_setting_from_python_is_reported_the_same_way(settings: dict[str, object], words: str):
    with pytest.raises(ManifestError) as caught:
        PodManifest.of(**settings)
    assert words in str(caught.value)


@given(structs(Scope))
def test_a_loaded_scope_holds_absolute_paths_alone(scope: Scope):
    rules = [rule for rule in (*scope.allow, *scope.deny) if not rule.target]
    if rules:
        with pytest.raises(ManifestError, match="a rule's target is empty"):
            PodManifest.of(scope=scope)
        return
    try:
        loaded = PodManifest.of(scope=scope).scope
    except ManifestError:
        return  # a rule within is empty, or names no home
    assert all(Path(rule.target).is_absolute() for rule in (*loaded.allow, *loaded.deny))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": 10**5000}, "an int that cannot be shown"),
        ({"model": {"temperature": 10**5000}}, "cannot be shown"),
        ({"model": {"context_window": "\ud800"}}, "half a character"),
    ],
)
def test_a_value_that_cannot_even_be_written_is_an_error_of_its_manifest(given, said):
    with pytest.raises(ManifestError, match=said):
        PodManifest.of(**given)


def test_names_may_have_letters_with_marks_of_any_script() -> None:
    for name in ("हिन्दी", "ไทยนี้", "Zoe\u0308", "tiê\u0301ng"):
        assert PodManifest.of(name=name).pod.name == name
    for name in ("\u0308", "\u0308a", "a b\u0308", "a\u202e\u0308", "e\u0301" * 128):
        with pytest.raises(ManifestError, match=r"pod\.name"):
            PodManifest.of(name=name)


def test_a_path_with_half_a_character_is_refused_and_one_with_bytes_that_are_no_utf_8_is_not():
    with pytest.raises(ManifestError, match=r"scope: expected a path, got .* which is not a valid path"):
        PodManifest.of(scope=Scope.writable("a\ud800"))
    assert PodManifest.of(scope=Scope.writable("/a\udce9")).scope.allow[0].target == "/a\udce9"
