"""Configuration: what was typed, written and exported comes to one manifest, one model and one store."""

from pathlib import Path

import pytest

from actors.cli.places import default_store, state_folder
from actors.cli.pods.manifest import Wishes, choose_model, manifest_for, with_default_model, with_model
from protocol.errors import ManifestError
from protocol.manifest import ModelSection, PodManifest
from protocol.scope import Rule


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_a_manifest_a_pod_has_files_search_and_shell_and_may_write_here(folder: Path):
    manifest, notes = manifest_for(Wishes(model="offline"))
    assert manifest.tools.builtin == ("files", "search", "shell")
    assert manifest.scope.allow == (Rule(str(folder), "write"),)
    assert manifest.pod.pwd == str(folder)
    assert str(folder) in (manifest.pod.system_prompt or "")
    assert notes == [f"tools: files, search, shell; may read and write {folder}"]


def test_where_a_pod_works_is_said_in_other_words_where_that_is_not_one_folder(folder: Path):
    _, notes = manifest_for(Wishes(model="offline"), folder="the folder of their job")
    assert notes == ["tools: files, search, shell; may read and write the folder of their job"]


def test_a_manifest_that_names_a_model_is_taken_at_its_word(folder: Path):
    path = folder / "pod.toml"
    path.write_text('[model]\nscheme = "ollama"\nmodel_id = "qwen3"\n')
    manifest, notes = manifest_for(Wishes(manifest=path))
    assert manifest.model == ModelSection("ollama", "qwen3")
    assert notes == []
    assert manifest.scope.allow == ()


def test_the_command_line_outdoes_the_manifest_and_keeps_the_rest(folder: Path):
    path = folder / "pod.toml"
    path.write_text('[model]\nscheme = "openai"\nmodel_id = "a"\napi_key_env = "KEY"\ntemperature = 0.5\n')
    manifest, _ = manifest_for(Wishes(manifest=path, model="ollama/b", name="other"))
    assert manifest.model == ModelSection("ollama", "b", temperature=0.5)
    assert manifest.name == "other"


def test_a_key_variable_stays_where_the_vendor_stays():
    manifest = PodManifest.of(model="openai/a", api_key_env="KEY")
    assert with_model(manifest, Wishes(model="openai/b")).model.api_key_env == "KEY"


def test_a_server_alone_is_asked_for_chat_completions():
    model = with_model(PodManifest.of(), Wishes(base_url="http://h:1/v1")).model
    assert (model.scheme, model.base_url) == ("openai", "http://h:1/v1")


def test_another_address_alone_is_for_the_same_model():
    model = PodManifest.of(model="anthropic/claude", base_url="http://a:1", api_key_env="KEY").model
    again = with_model(PodManifest.of().replace(model=model), Wishes(base_url="http://b:2")).model
    assert again == ModelSection("anthropic", "claude", "http://b:2", "KEY")


def test_allowed_folders_add_to_the_scope(folder: Path):
    (folder / "more").mkdir()
    manifest, _ = manifest_for(Wishes(model="offline", allow=(Path("more"),)))
    assert manifest.scope.permits(folder / "more" / "x", "write")


def test_a_name_that_is_none_is_refused():
    with pytest.raises(ManifestError, match=r"pod\.name"):
        manifest_for(Wishes(model="offline", name="a b"))


def test_the_model_that_was_found_is_named_with_its_server():
    model, note = choose_model(("ollama", ["qwen3", "gemma3"]))
    assert model == ModelSection("ollama", "qwen3")
    assert note == "model: ollama/qwen3, from the ollama server on this machine, which has 1 more"


def test_where_no_server_answers_the_embedded_model_is_named():
    model, note = choose_model(None)
    assert "at its usual port" in note  # that of [local_model] may answer at another
    assert model.scheme == "offline"
    assert note.startswith("model: offline")


LOCAL = '[local_model]\nendpoint = "{}"\nmodel = "qwen3"\n'


def test_the_local_model_of_the_configuration_answers_where_no_other_was_named(folder: Path):
    """Other commands used it, but pods did not."""
    (folder / "polypod.toml").write_text(LOCAL.format("http://127.0.0.1:9/v1") + "default_temperature = 0.5")
    manifest, notes = manifest_for(Wishes())
    assert manifest.model == ModelSection("openai", "qwen3", "http://127.0.0.1:9/v1", temperature=0.5)
    assert notes[0].startswith("model: qwen3 at http://127.0.0.1:9/v1, the local model of /")
    manifest, _ = manifest_for(Wishes(model="ollama/phi4"))
    assert manifest.model == ModelSection("ollama", "phi4")
    (folder / "pod.toml").write_text('[model]\nscheme = "offline"\n')
    manifest, _ = manifest_for(Wishes(manifest=folder / "pod.toml"))
    assert manifest.model == ModelSection()


def test_a_manifest_that_names_no_model_keeps_its_other_settings_of_the_model(folder: Path):
    (folder / "pod.toml").write_text("[model]\ntemperature = 0.25\nmax_tokens = 99\nidle_timeout = 7\n")
    for configuration in ("", LOCAL.format("http://127.0.0.1:9/v1") + "default_temperature = 0.5"):
        (folder / "polypod.toml").write_text(configuration)
        manifest, _ = manifest_for(Wishes(manifest=folder / "pod.toml"))
        assert manifest.model.temperature == 0.25
        assert manifest.model.max_tokens == 99
        assert manifest.model.idle_timeout == 7
    assert manifest.model.model_id == "qwen3"


@pytest.mark.parametrize(("scheme", "kept"), [("ollama", 9000), ("llama_cpp", None)])
def test_a_context_for_ollama_is_kept_for_ollama_alone(scheme: str, kept: int | None):
    manifest = PodManifest.from_toml("[model]\nnum_ctx = 9000\n")
    assert with_default_model(manifest, ModelSection(scheme, "qwen3")).model.num_ctx == kept


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (LOCAL.format("http://192.0.2.1/v1"), "is not trusted: review and trust it"),
        (LOCAL.format("http://127.0.0.1:9/v1") + 'api_key = "sesame"', "contains its key: name a variable"),
    ],
)
def test_a_local_model_that_pods_cannot_use_is_named_and_another_is_used(folder: Path, text: str, why: str):
    path = folder / "polypod.toml"
    path.write_text(text)
    manifest, notes = manifest_for(Wishes())
    assert manifest.model.base_url is None
    assert notes[0].startswith(f"the local model is not used, since {path} {why}")
    assert notes[1].startswith("model: ")
    assert "sesame" not in str(notes)


def test_the_default_store_lies_in_the_state_folder(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    assert default_store() == f"sqlite:{folder}/state/polypod/pods.db"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(folder))
    assert default_store() == f"sqlite:{folder}/.local/state/polypod/pods.db"
    assert state_folder().stat().st_mode & 0o777 == 0o700
