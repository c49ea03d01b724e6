"""A person at a terminal has the embedded model run a command, and is asked where nothing confines it."""

from pathlib import Path

from command_kit import Home
from person import person

MANIFEST = """
[model]
scheme = "offline"
[tools]
builtin = ["shell"]
[sandbox]
mode = "off"
"""


def at_home(folder: Path) -> Home:
    home = Home(folder)
    home.write("pod.toml", MANIFEST)
    return home


def test_a_command_runs_once_the_person_allows_it(tmp_path: Path) -> None:
    home = at_home(tmp_path)
    with person(home, "run", "run echo made > made; cat made", "--manifest", "pod.toml") as somebody:
        somebody.sees("wants to run shell")
        somebody.sees('command = "echo made > made; cat made"')
        somebody.press("y\n")
        somebody.sees("[exit code 0]")
        assert somebody.leaves_with() == 0
    assert (home.folder / "made").read_text() == "made\n"


def test_a_command_that_the_person_denies_does_not_run(tmp_path: Path) -> None:
    home = at_home(tmp_path)
    with person(home, "run", "run echo made > made", "--manifest", "pod.toml") as somebody:
        somebody.sees("allow it?")
        somebody.press("n not now\n")
        somebody.sees("There is no result")
        somebody.leaves_with()
    assert not (home.folder / "made").exists()


def test_without_a_terminal_it_is_denied_in_words(tmp_path: Path) -> None:
    home = at_home(tmp_path)
    said = home.polypod("run", "run echo made > made", "--manifest", "pod.toml")
    assert "shell was not run: it needs a person's approval" in said.out
    assert not (home.folder / "made").exists()


def test_a_command_that_is_killed_or_stopped_as_it_works_leaves_the_terminal_its_cursor(
    tmp_path: Path,
) -> None:
    with person(Home(tmp_path), "run", "run sleep 60", "--model", "offline") as somebody:
        somebody.sees("shell(command=")
        somebody.process.kill()
        somebody.leaves_with()
    shown, hidden = (somebody.written.rfind(f"\x1b[?25{how}") for how in "hl")
    assert shown > hidden
