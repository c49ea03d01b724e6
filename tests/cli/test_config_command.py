"""``polypod config``: what is set, what comes of it, and a person's word for a project's file; ``--profile``."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from command_kit import COMMAND, Home
from person import Person

from protocol.manifest import PodManifest

RUNNER = '[[runner]]\nname = "mine"\ncommand = ["touch", "started"]\n'
RULES = """
[[approval]]
tool = "write_file"
policy = "{}"
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def own(home: Home, text: str) -> Path:
    """The file in the configuration folder of who lives there."""
    path = Path(home.env["HOME"]) / ".config" / "polypod" / "polypod.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A model server with one model: its URL, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"GET {self.path} {self.headers.get('authorization')}")
            body = json.dumps({"data": [{"id": "qwen3"}]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            asked.append(f"POST {self.path}")
            self.send_error(500)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_address[1]}/v1", asked
        listening.shutdown()


def checked(home: Home) -> tuple[int, dict[str, dict[str, str]]]:
    """What ``config check`` found, by name; of files the first."""
    done = home.polypod("config", "check", "--json")
    return done.code, {line["name"]: line for line in reversed(done.lines)}


def test_where_nothing_is_set_that_is_said_and_is_no_failure(home: Home):
    code, found = checked(home)
    assert code == 0
    assert found["configuration"]["status"] == "ok"
    assert "no polypod.toml here or above" in found["configuration"]["text"]


def test_what_is_set_is_shown_with_what_will_come_of_it_and_no_model_is_asked(
    home: Home, server: tuple[str, list[str]]
):
    url, asked = server
    path = own(
        home,
        f"""
[local_model]
endpoint = "{url}"
model = "qwen3"
api_key = "sesame"
[[runner]]
name = "mine"
command = ["sh", "agent.sh"]
[[chain]]
name = "cheap"
entries = ["offline"]
verifier = {{ command = ["true"] }}
[pool]
runners = ["local", "mine"]
limits = {{ mine = 2 }}
[profile.fast]
model = {{ scheme = "openai", model_id = "qwen3", base_url = "{url}" }}
tools = {{ builtin = ["files"] }}
"""
        + RULES.format("ask"),
    )
    path.chmod(0o600)
    code, found = checked(home)
    assert code == 0, found
    assert {each["status"] for each in found.values()} == {"ok"}
    assert found["file"]["text"] == f"{path}, the user's own"
    assert found["local model"]["text"].endswith("answers and has 1 model")
    assert found["runner mine"]["text"] == "starts sh agent.sh"
    assert found["chain cheap"]["text"] == "offline; answers are judged by `true`"
    assert "local, mine (2 at a time)" in found["pool"]["text"]
    assert "the local model classifies" in found["pool"]["text"]
    assert "tools: files" in found["profile fast"]["text"]
    assert "1 rule of" in found["approvals"]["text"]
    assert sorted(asked) == ["GET /v1/models Bearer sesame", "GET /v1/models None"]
    assert "sesame" not in json.dumps(found)


WRONG = {
    '[local_model]\nendpoint = "http://127.0.0.1:9/v1"': ("local model", "http://127.0.0.1:9/v1"),
    '[local_model]\nendpoint = "http://localhost/v1"\napi_key = "env:NO_KEY"': ("local model", "NO_KEY"),
    '[[runner]]\nname = "mine"\ncommand = ["no-such-program"]': ("runner mine", "no program no-such-program"),
    '[[runner]]\nname = "mine"': ("runner mine", "there is no runner 'mine'"),
    '[[chain]]\nname = "c"\nentries = ["nonsense/x"]': (
        "chain c",
        "the server of the model 'nonsense/x' is unknown",
    ),
    '[[chain]]\nname = "c"\nentries = ["offline"]': ("chain c", "the answers of offline cannot be verified"),
    '[[chain]]\nname = "c"\nentries = ["chain/c"]\nverifier = { command = ["true"] }': (
        "chain c",
        "contains itself as a tier",
    ),
    '[[chain]]\nname = "c"\nentries = ["chain/d"]\nverifier = { command = ["true"] }': (
        "chain c",
        "there is no chain 'd'",
    ),
    '[[chain]]\nname = "c"\nentries = ["offline"]\nverifier = { command = ["true"] }\nwarm_url = "ftp://h"': (
        "chain c",
        "warm_url",
    ),
    '[[chain]]\nname = "c"\nentries = ["offline"]\nverifier = { command = ["nope-x"] }': (
        "chain c",
        "nope-x",
    ),
    '[pool]\nrunners = ["pod", "process"]\nclassifier = ["nope-y"]': ("pool", "no program nope-y"),
    "[pool]\nclassifier = []": ("polypod.toml", "pool.classifier: expected a command as a list of strings"),
    '[pool]\nrunners = ["nobody"]': ("pool", "there is no runner nobody"),
    '[profile.p]\nmodel = "anthropic/x"': ("profile p", "ANTHROPIC_API_KEY"),
    "[profile.p]\nmodle = 5": ("polypod.toml", "unknown key 'modle'"),
}


@pytest.mark.parametrize("text", WRONG)
def test_what_cannot_work_is_a_failure_with_what_to_do(home: Home, text: str):
    own(home, text).chmod(0o600)
    code, found = checked(home)
    name, words = WRONG[text]
    assert code == 1
    assert found[name]["status"] == "failed"
    assert words in found[name]["text"]


def test_whether_a_server_says_which_models_are_loaded_is_shown(home: Home, server: tuple[str, list[str]]):
    text = (
        '[[chain]]\nname = "c"\nentries = ["offline"]\nverifier = {{ command = ["true"] }}\nwarm_url = "{}"'
    )
    own(home, text.format(server[0]))
    code, found = checked(home)
    assert (code, found["chain c"]["status"]) == (0, "missing")
    assert "reports which models are loaded, so none counts as loaded" in found["chain c"]["text"]


def test_a_pool_of_one_runner_has_no_classifier(home: Home):
    own(home, '[local_model]\nendpoint = ""\n[pool]\nrunners = ["pod"]\nclassifier = ["nope-z"]\n')
    code, found = checked(home)
    assert code == 0
    assert "no classifier" in found["pool"]["text"]


def test_a_key_in_a_file_that_others_may_read_is_a_failure(home: Home, server: tuple[str, list[str]]):
    path = own(home, f'[local_model]\nendpoint = "{server[0]}"\napi_key = "sesame"\n')
    path.chmod(0o644)
    code, found = checked(home)
    assert code == 1
    assert f"chmod 600 {path}" in found["key"]["todo"]


def test_a_model_that_a_server_has_not_is_a_failure_with_those_that_it_has(
    home: Home, server: tuple[str, list[str]]
):
    own(home, f'[local_model]\nendpoint = "{server[0]}"\nmodel = "qwen4"\n')
    code, found = checked(home)
    assert code == 1
    assert "no such model; it has qwen3" in found["local model"]["text"]


def test_of_a_file_that_nobody_has_looked_at_nothing_is_asked_or_used(
    home: Home, server: tuple[str, list[str]]
):
    url, asked = server
    home.write("polypod.toml", f'{RUNNER}[local_model]\nendpoint = "{url}"\n')
    code, found = checked(home)
    assert code == 1
    assert "runner 'mine' starts: touch started" in found["file"]["text"]
    assert found["file"]["todo"] == "`polypod config trust` shows what needs a review, and asks"
    assert all("not used until" in found[name]["text"] for name in ("local model", "runner mine"))
    assert asked == []


def test_a_person_looks_once_and_again_after_a_change(home: Home):
    path = home.write("polypod.toml", RUNNER)
    person = Person(home, "config", "trust")
    person.sees("runner 'mine' starts: touch started")
    person.sees("Trust it? [y/N]")
    person.press("n\n")
    assert person.leaves_with() == 2
    assert checked(home)[0] == 1
    person = Person(home, "config", "trust")
    person.sees("Trust it? [y/N]")
    person.press("y\n")
    person.sees("trusted until it changes")
    assert person.leaves_with() == 0
    assert checked(home)[1]["file"]["text"].endswith("reviewed in its current form")
    path.write_text(RUNNER + "#")
    assert checked(home)[1]["file"]["status"] == "failed"


def test_without_a_terminal_it_is_refused_with_words_unless_the_content_is_named(home: Home):
    home.write("polypod.toml", RUNNER)
    done = home.polypod("config", "trust", words="y\n")
    assert done.code == 2
    assert "only a person may trust a file, at a terminal" in done.err
    digest = done.err.split("SHA-256 ")[1].split(":")[0]
    other = home.polypod("config", "trust", "--sha256", "0" * 64)
    assert other.code == 2
    assert "has another content" in other.err
    assert home.polypod("config", "trust", "--sha256", digest).code == 0
    assert checked(home)[1]["file"]["status"] == "ok"
    assert "is no longer trusted" in home.polypod("config", "trust", "--forget").err
    assert checked(home)[1]["file"]["status"] == "failed"


def test_what_a_file_says_moves_no_cursor(home: Home):
    home.write("polypod.toml", '[[runner]]\nname = "m"\ncommand = ["\\u001b[2Jevil"]\n')
    assert "\x1b" not in home.polypod("config", "trust").err


def test_a_file_that_needs_no_look_is_not_asked_about(home: Home):
    home.write("polypod.toml", "[profile.p]\nmax_steps = 3\n")
    done = home.polypod("config", "trust")
    assert done.code == 0
    assert "nothing that needs a review" in done.err
    (home.folder / "polypod.toml").unlink()
    assert home.polypod("config", "trust").code == 2


# -- what commands make of it ------------------------------------------------------------------------------


def manifest_of(home: Home) -> PodManifest:
    """That of the last session."""
    exported = home.polypod("export", home.session(), "-").out
    opened = next(json.loads(line) for line in exported.splitlines() if '"manifest"' in line)
    return PodManifest.of(**find(opened, "manifest"))


def find(value: Any, key: str) -> Any:
    """The first value of that key, however deep."""
    if isinstance(value, dict):
        if key in value:
            return value[key]
        value = list(value.values())
    if isinstance(value, list):
        return next((found for each in value if (found := find(each, key)) is not None), None)
    return None


def test_a_profile_is_what_a_run_takes_and_options_outdo_it(home: Home):
    home.write("polypod.toml", '[profile.p]\nmodel = "offline"\nmax_steps = 3\nbuiltin = ["search"]\n')
    done = home.polypod("run", "hi", "--profile", "p", "--max-steps", "4")
    assert done.code == 0, done.err
    assert f"profile p of {home.folder / 'polypod.toml'}; tools: search" in done.err
    manifest = manifest_of(home)
    assert manifest.tools.builtin == ("search",)
    assert manifest.worker.max_steps == 4
    assert manifest.pod.pwd == str(home.folder), "all else is that of a pod at a terminal"
    home.env["POLYPOD_PROFILE"] = "p"
    assert home.polypod("run", "hi").code == 0
    assert manifest_of(home).worker.max_steps == 3
    assert home.polypod("resume", "last", "hi").code == 0, "a session keeps the settings that it began with"


def test_what_is_wrong_with_a_chain_is_said_of_its_file_and_not_of_the_manifest(home: Home):
    path = own(home, '[[chain]]\nname = "c"\nentries = ["phi4"]\nverifier = { command = ["true"] }\n')
    home.write("pod.toml", '[model]\nscheme = "chain"\nmodel_id = "c"\n')
    done = home.polypod("run", "--manifest", "pod.toml", "hi")
    assert done.code != 0
    assert f"polypod: {path}: chain 'c': the server of the model 'phi4' is unknown" in done.err


def test_a_profile_goes_over_a_manifest(home: Home):
    home.write("pod.toml", '[worker]\nmax_steps = 7\nmax_tokens = 9000\n[model]\nscheme = "offline"\n')
    home.write("polypod.toml", "[profile.p]\nmax_steps = 3\n")
    assert home.polypod("run", "hi", "--manifest", "pod.toml", "--profile", "p").code == 0
    assert (manifest_of(home).worker.max_steps, manifest_of(home).worker.max_tokens) == (3, 9000)


def test_a_profile_that_is_not_there_or_not_trusted_is_refused(home: Home):
    home.write("polypod.toml", f'{RUNNER}[profile.fast]\nmodel = "offline"\n')
    done = home.polypod("run", "hi", "--profile", "fsat")
    assert done.code == 2
    assert "did you mean 'fast'?" in done.err
    done = home.polypod("run", "hi", "--profile", "fast")
    assert done.code == 2
    assert "polypod config trust" in done.err
    assert home.run("hi").code == 0, "what asks for nothing of it runs"
    done = home.polypod("chat", "--resume", "last", "--profile", "fast")
    assert done.code == 2
    assert "--profile is only for new sessions" in done.err


def test_rules_of_approval_hold_for_every_run_and_allow_nothing_until_a_look(home: Home):
    own(home, RULES.format("deny"))
    done = home.run('write "x" to notes.txt')
    assert not (home.folder / "notes.txt").exists()
    assert "deny" in done.err
    own(home, "")
    home.write("polypod.toml", RULES.format("allow"))
    done = home.run("hi")
    assert "its rules that allow are ignored" in done.err
    assert manifest_of(home).approval == ()


def test_a_file_that_is_wrong_ends_a_run_with_its_place(home: Home):
    path = home.write("polypod.toml", "[profile.p]\nmax_stepz = 3\n")
    done = home.run("hi")
    assert done.code == 2
    assert f"{path}: profile.p: unknown key 'max_stepz'" in done.err
    doctor = home.polypod("doctor", "--json")
    assert {line["name"]: line["status"] for line in doctor.lines}["configuration"] == "failed"


def test_doctor_says_which_files_hold(home: Home):
    path, users = home.write("polypod.toml", RUNNER), own(home, "")
    lines = {line["name"]: line for line in home.polypod("doctor", "--json").lines}
    assert lines["configuration"]["text"] == f"{path}, then {users}; the first is not trusted"
    assert "config trust" in lines["configuration"]["todo"]


_UNCONFINED = """
[model]
scheme = "offline"
[tools]
builtin = ["shell"]
[sandbox]
mode = "off"
[[approval]]
tool = "shell"
policy = "allow"
[[scope.allow]]
target = "."
permission = "write"
"""


def test_what_a_pod_has_started_trusts_no_file_though_nothing_confines_it(home: Home):
    home.write("polypod.toml", RUNNER)
    home.write("pod.toml", _UNCONFINED)
    digest = home.polypod("config", "trust").err.split("SHA-256 ")[1].split(":")[0]
    home.write("trust.sh", f"{' '.join(COMMAND)} config trust --sha256 {digest} > said 2>&1")
    home.write("trust.sh", f"PYTHONPATH={home.env['PYTHONPATH']} " + (home.folder / "trust.sh").read_text())
    home.polypod("run", "run sh trust.sh", "--manifest", "pod.toml")
    assert "only a person may answer" in (home.folder / "said").read_text()
    assert checked(home)[1]["file"]["status"] == "failed"
