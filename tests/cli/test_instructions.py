"""AGENTS.md, from the project's root to the folder that a pod works in."""

from pathlib import Path

from command_kit import Home
from model_kit import model_server

from actors.cli.pods.instructions import MOST, project_instructions
from actors.llm.scripted import say


def project(tmp_path: Path) -> Path:
    (tmp_path / ".git").mkdir()
    (tmp_path / "AGENTS.md").write_text("\ufeffUse tabs.\n", encoding="utf-8")
    inner = tmp_path / "src" / "app"
    inner.mkdir(parents=True)
    return inner


def test_files_are_read_from_the_root_to_the_folder_and_an_override_counts(tmp_path: Path):
    inner = project(tmp_path)
    (tmp_path / "src" / "AGENTS.md").write_text("passed over")
    (tmp_path / "src" / "AGENTS.override.md").write_text("Use blanks.")
    (inner / "AGENTS.md").write_text("\n")
    found = project_instructions(inner)
    assert found is not None
    assert [path.relative_to(tmp_path).parts for path in found.files] == [
        ("AGENTS.md",),
        ("src", "AGENTS.override.md"),
    ]
    assert found.text.index("Use tabs.") < found.text.index("Use blanks.")
    assert "passed over" not in found.text
    assert "\ufeff" not in found.text


def test_without_a_project_only_the_folder_itself_counts(tmp_path: Path):
    inner = project(tmp_path)
    (tmp_path / ".git").rmdir()
    assert project_instructions(inner) is None
    (inner / "AGENTS.md").write_text("Here.")
    found = project_instructions(inner)
    assert found is not None
    assert "Here." in found.text
    assert "tabs" not in found.text


def test_a_link_that_leads_out_of_the_project_and_what_is_too_long_are_named_and_not_read(tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_text("a key")
    root = tmp_path / "repo"
    root.mkdir()
    inner = project(root)
    (inner / "AGENTS.md").symlink_to(secret)
    (root / "src" / "AGENTS.md").write_text("x" * MOST)
    found = project_instructions(inner)
    assert found is not None
    assert "a key" not in found.text
    assert len(found.text) < MOST + 500
    assert ["leads out" in note or "is truncated" in note for note in found.notes] == [True, True]


def test_a_pod_is_given_the_instructions_once_and_says_where_they_come_from(home: Home):
    (home.folder / "AGENTS.md").write_text("Answer in rhymes.")
    with model_server(say("one"), say("two"), say("three")) as model:
        first = home.polypod("run", "hi", *model.options)
        again = home.polypod("run", "more", "--continue", "--model", "openai/m", "--base-url", model.url)
        without = home.polypod("run", "hi", "--no-instructions", *model.options)
    assert "instructions: AGENTS.md" in first.err
    assert "instructions:" not in again.err + without.err
    prompts = [str(asked["messages"][0]) for asked in model.asked]
    assert [prompt.count("Answer in rhymes.") for prompt in prompts] == [1, 1, 0]


def test_a_manifest_says_all_of_it_itself(home: Home):
    (home.folder / "AGENTS.md").write_text("Answer in rhymes.")
    home.write("pod.toml", "")
    with model_server(say("one")) as model:
        assert home.polypod("run", "hi", "--manifest", "pod.toml", *model.options).code == 0
    assert "rhymes" not in str(model.asked)
