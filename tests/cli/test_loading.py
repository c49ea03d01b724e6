"""Tools of one's own: found in a file or a module, named in errors, and called by pods at the terminal."""

import sys
from pathlib import Path

import click
import pytest
from command_kit import Home

from actors.cli.user_tools import load_named_tools, tools_line
from actors.llm.scripted import ScriptedClient, call, say
from actors.system import PodSystem
from actors.tools.base import Tool
from actors.tools.source import is_source
from protocol.manifest import PodManifest

_TOOLS = '''
from actors import tool
from beside import mark

@tool
def shout(text: str) -> str:
    """Say it aloud."""
    return text.upper() + mark

@tool(name="hush", concurrency="read_only")
async def whisper(text: str) -> str:
    return text.lower()

def helper(text: str) -> str:
    return text

both = [shout, helper]
none = []
number = 3
'''

_SHOP = """
class Tables:
    name = "the tables"
    opened = []

    async def open(self):
        self.opened.append("open")

    def tools(self):
        return [find_rows]

    async def close(self):
        self.opened.append("close")


def find_rows(table: str) -> str:
    return f"all of {table}"


tables = Tables()
all_of_it = [find_rows, Tables()]
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.write("beside.py", "mark = '!'\n")
    home.write("mine.py", _TOOLS)
    return home


@pytest.fixture
def here(home: Home, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the tools, as the working directory, with nothing of other tests imported."""
    monkeypatch.chdir(home.folder)
    monkeypatch.setattr(sys, "path", sys.path[:])
    for name in ("mine", "beside"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return home.folder


def names(*asked: str) -> list[str]:
    return [each.name if isinstance(each, Tool) else each.__name__ for each in load_named_tools(asked)]


@pytest.mark.parametrize("place", ["mine", "mine.py", "./mine.py"])
def test_all_that_a_file_or_module_makes_a_tool_is_one(here: Path, place: str):
    assert names(place) == ["shout", "hush"]
    assert names(f"{place}:helper") == ["helper"]
    assert names(f"{place}:both") == ["shout", "helper"]


def test_a_file_is_imported_once_wherever_it_is(here: Path, tmp_path: Path):
    elsewhere = tmp_path / "json.py"  # called like a module of Python's own
    elsewhere.write_text("from polypod import tool\n@tool\ndef f() -> str:\n    return ''\n")
    first, second = load_named_tools([str(elsewhere), f"{elsewhere}:f"])
    assert first is second


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("", "expected FILE.py or MODULE"),
        ("mine:", "expected FILE.py or MODULE"),
        ("..", "expected FILE.py or MODULE"),
        ("/dev/null", "expected FILE.py or MODULE"),
        ("nothing_here:f", "nothing_here cannot be imported: ModuleNotFoundError"),
        ("nothing.py", "there is no file nothing.py"),
        ("mine.py:f", "mine.py has no 'f'"),
        ("mine:number", "expected a function, a tool, a tool source, or a list of them"),
        ("mine:none", "expected a function, a tool, a tool source, or a list of them"),
        ("shop.py:Tables", "Tables is a class: create an instance in the module, and name that"),
        ("shop.py", "or name a function or a tool source: shop.py:NAME"),
        ("beside.py", "it has no tools: put @tool on a function"),
        ("broken.py", "broken.py cannot be imported: ZeroDivisionError: division by zero (line 2)"),
        (
            "unclosed.py",
            "unclosed.py cannot be imported: SyntaxError: '(' was never closed (unclosed.py, line 1)",
        ),
        ("leaving.py", "leaving.py cannot be imported: SystemExit: 3 (line 2)"),
        ("nameless.py", "nameless.py cannot be imported: tool '-1!': a name must be 1 to 64 letters"),
    ],
)
def test_what_cannot_be_had_is_refused_in_words(here: Path, asked: str, words: str):
    (here / "broken.py").write_text("one = 1\none / 0\n")
    (here / "unclosed.py").write_text("print(\n")
    (here / "leaving.py").write_text("import sys\nsys.exit(3)\n")
    (here / "shop.py").write_text(_SHOP)
    (here / "nameless.py").write_text("from polypod import tool\ntool(name='-1!')(print)\n")
    with pytest.raises(click.UsageError) as caught:
        load_named_tools([asked])
    assert caught.value.message.startswith(f"--tools {asked}: ")
    assert words in caught.value.message


def test_a_source_of_tools_is_had_by_its_name_alone_or_in_a_list(here: Path):
    (here / "shop.py").write_text(_SHOP)
    [source] = load_named_tools(["shop.py:tables"])
    assert load_named_tools(["shop.py:tables"]) == (source,)
    assert tools_line([source]) == ["your tools: those of the tables"]
    function, other = load_named_tools(["shop.py:all_of_it"])
    assert (function.__name__, is_source(other)) == ("find_rows", True)


async def test_pods_whose_manifests_name_the_same_source_share_it(here: Path):
    (here / "shop.py").write_text(_SHOP)
    manifest = PodManifest.of(name="p", pwd=str(here), tools={"modules": [str(here / "shop.py:tables")]})
    [source] = load_named_tools(["shop.py:tables"])
    clients = [ScriptedClient([call("find_rows", {"table": "x"}), say("done")]) for _ in range(2)]
    async with PodSystem() as system:
        pods = [await system.spawn(manifest, client=client) for client in clients]
        assert source.opened == []
        for pod in pods:
            assert (await pod.run("go")).text == "done"
        assert source.opened == ["open"]
    assert source.opened == ["open", "close"]
    assert [client.requests[1].items[-1].text for client in clients] == ["all of x"] * 2


# -- at the terminal ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["run"], ["run", "--json"]])
def test_a_run_calls_tools_of_ones_own(home: Home, command: list[str]):
    done = home.polypod(*command, "use shout hello", "--model", "offline", "--tools", "mine.py")
    assert done.code == 0, done.err
    assert "HELLO!" in done.out
    assert ("your tools: shout, hush" in done.err) == ("--json" not in command)


def test_a_chat_and_a_session_that_goes_on_call_them_too(home: Home):
    chat = home.polypod("chat", "--model", "offline", "--tools", "mine.py", words="use shout one\n")
    assert "ONE!" in chat.out
    without = home.polypod("resume", home.session(), "use shout two", "--no-tools")
    assert "TWO!" not in without.out
    assert "your tools" not in without.err
    again = home.polypod("resume", home.session(), "use shout two")
    assert "TWO!" in again.out
    assert "your tools: shout, hush" in again.err
    other = home.polypod("resume", home.session(), "use shout two", "--tools", "mine:shout")
    assert "TWO!" in other.out
    assert "your tools: shout\n" in other.err
    more = home.polypod("chat", "--resume", home.session(), "--tools", "mine.py", words="use hush TWO\n")
    assert "hush answered: two" in more.out


def test_a_session_remembers_its_tools_from_wherever_it_goes_on_and_says_what_is_gone(home: Home):
    assert home.run("use shout one", "--tools", "mine.py:shout").code == 0
    session = home.session()
    elsewhere = home.folder.parent / "elsewhere"
    elsewhere.mkdir()
    with home.start("resume", session, "use shout two", cwd=elsewhere) as process:
        assert "TWO!" in process.communicate(timeout=60)[0]
    (home.folder / "mine.py").unlink()
    gone = home.polypod("resume", session, "use shout three")
    assert (gone.code, gone.out) == (2, "")
    assert f"there is no file {home.folder / 'mine.py'}" in gone.err
    assert "continue without them with --no-tools" in gone.err
    assert home.polypod("resume", session, "hello", "--no-tools").code == 0


def test_a_manifest_names_tools_relative_to_itself(home: Home):
    manifest = home.write("pod.toml", '[model]\nscheme = "offline"\n[tools]\nmodules = ["mine.py:shout"]\n')
    elsewhere = home.folder.parent / "elsewhere"
    elsewhere.mkdir()
    with home.start("run", "use shout one", "--manifest", str(manifest), cwd=elsewhere) as process:
        assert "ONE!" in process.communicate(timeout=60)[0]


def test_a_manifest_and_a_session_name_a_source_of_tools(home: Home):
    home.write("shop.py", _SHOP)
    manifest = home.write("pod.toml", '[model]\nscheme = "offline"\n[tools]\nmodules = ["shop.py:tables"]\n')
    done = home.polypod("run", "use find_rows kayaks", "--manifest", str(manifest))
    assert "all of kayaks" in done.out
    assert "your tools: those of the tables" in done.err
    again = home.polypod("resume", home.session(), "use find_rows boats")
    assert "all of boats" in again.out


@pytest.mark.parametrize("command", ["run", "chat", "bench"])
def test_tools_that_are_none_are_refused_before_anything_is_kept(home: Home, command: str):
    task = ["hi"] if command == "run" else []
    done = home.polypod(command, *task, "--model", "offline", "--tools", "beside.py")
    assert (done.code, done.out) == (2, "")
    assert "polypod: --tools beside.py: it has no tools" in done.err
    assert home.polypod("ps", "--json").out == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def read_file(path: str) -> str: ...", "two tools have the name 'read_file'"),
        ("def odd(what: type) -> str: ...", "odd"),
    ],
)
def test_tools_that_no_pod_can_have_are_bad_input(home: Home, text: str, words: str):
    home.write("odd.py", f"from polypod import tool\n{text}\n")
    name = text.removeprefix("def ").partition("(")[0]
    done = home.polypod("run", "hi", "--model", "offline", "--tools", f"odd.py:{name}")
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert "Traceback" not in done.err
