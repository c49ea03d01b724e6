"""What a shell is offered where somebody presses Tab."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from command_kit import COMMAND, Home
from model_kit import model_server

from actors.cli.models import key_hint


def offered(home: Home, *words: str) -> list[str]:
    """What is offered for the last of these words."""
    asked = {
        "COMP_WORDS": " ".join(("polypod", *words)),
        "COMP_CWORD": str(len(words)),
        "_POLYPOD_COMPLETE": "bash_complete",
    }
    done = subprocess.run(
        COMMAND, env=home.env | asked, cwd=home.folder, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_commands_options_sessions_and_models_are_offered(home: Home):
    home.run("list files", "--name", "lister")
    session = home.session()
    assert {"run", "resume", "rm"} <= set(offered(home, "r"))
    assert offered(home, "run", "--max") == ["--max-steps"]
    assert offered(home, "show", session[-12:-8]) == [session[-12:]]
    assert offered(home, "resume", session[:12]) == [session]
    assert offered(home, "chat", "--resume", "la") == ["last"]
    assert offered(home, "ps", "--pod", "li") == ["lister"]
    assert offered(home, "run", "--model", "off") == ["offline"]
    assert "ollama/" in offered(home, "run", "-m", "o")


def test_sessions_of_the_store_that_was_named_are_offered_and_a_broken_one_offers_none(home: Home):
    home.run("list files", "--store", "jsonl:other")
    assert offered(home, "show", "la") == ["last"]
    assert len(offered(home, "show", "--store", "jsonl:other", "")) == 2
    home.write("broken.db", "no database" * 100)
    assert offered(home, "show", "--store", "sqlite:broken.db", "x") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_own_script(home: Home, shell: str):
    script = home.polypod("completion", shell)
    assert script.code == 0, script.err
    assert "_POLYPOD_COMPLETE" in script.out
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=script.out, text=True, check=True, timeout=60)
    home.env["SHELL"] = f"/usr/bin/{shell}"
    assert home.polypod("completion").out == script.out


def test_a_shell_that_is_not_known_is_named_with_those_that_are(home: Home):
    home.env["SHELL"] = "/bin/ksh"
    done = home.polypod("completion")
    assert (done.code, "bash, zsh, fish" in done.err) == (2, True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_a_command_with_what_was_installed(home: Home):
    home.write("polypod.bash", home.polypod("completion", "bash").out)
    (home.folder / "polypod").write_text(f'#!/bin/sh\nexec {sys.executable} -m polypod "$@"\n')
    (home.folder / "polypod").chmod(0o700)
    script = 'source polypod.bash; COMP_WORDS=(./polypod sch); COMP_CWORD=1; _polypod_completion ./polypod; echo "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "-c", script],
        env=home.env,
        cwd=home.folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "schema"


def test_models_are_listed_of_a_server_that_is_named(home: Home):
    with model_server() as model:
        done = home.polypod("models", "--base-url", model.url)
        assert done.out.splitlines() == ["openai/small", "openai/m"]
        rows = home.polypod("models", "openai", "--base-url", model.url, "--json").lines
    assert [row["name"] for row in rows] == ["openai/small", "openai/m"]
    assert "offline" in home.polypod("models").out
    assert home.polypod("models", "--base-url", "http://127.0.0.1:9/v1").code == 1
    assert home.polypod("models", "nonsense").code == 1


@contextmanager
def refusing_server(status: int) -> Iterator[str]:
    """A model server that answers everything so: its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_address[1]}/v1"
        listening.shutdown()


@contextmanager
def guarded_server(key: str) -> Iterator[str]:
    """A model server that lists one model for who has the key: its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("authorization") != f"Bearer {key}":
                self.send_error(401)
                return
            body = json.dumps({"data": [{"id": "mine"}]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_address[1]}/v1"
        listening.shutdown()


def test_models_sends_the_key_in_a_variable_that_is_named(home: Home):
    """A server of one's own could be sent none."""
    home.env |= {"MY_KEY": "sesame", "OTHER_KEY": "rice"}
    with guarded_server("sesame") as url:
        server = ("models", "vllm", "--base-url", url)
        assert home.polypod(*server, "--api-key-env", "MY_KEY").out == "vllm/mine\n"
        assert "hint: check the key in $OTHER_KEY" in home.polypod(*server, "--api-key-env", "OTHER_KEY").err
        unset = home.polypod(*server, "--api-key-env", "NO_KEY")
        assert (unset.code, "NO_KEY is not set" in unset.err) == (2, True)
        assert "--api-key-env" in home.polypod(*server).err
    assert home.polypod("models", "--api-key-env", "MY_KEY").code == 2


def test_a_server_that_wants_a_key_is_answered_with_what_models_takes(home: Home):
    with refusing_server(401) as url:
        none = home.polypod("models", "--base-url", url).err
        wrong = home.polypod("models", "vllm", "--base-url", url.replace("//", "//me:sesame@")).err
    assert "no key was sent: name the variable that contains it with --api-key-env" in none
    assert "a user and password into --base-url" in none
    assert "hint: check the user and password in the URL" in wrong
    assert "sesame" not in wrong
    with refusing_server(404) as url:
        assert "hint: check the URL, which" in home.polypod("models", "--base-url", url).err
    away = home.polypod("models", "azure")
    assert (away.code, "manifest" in away.err) == (2, False)
    assert "hint: set it in base_url (--base-url), or export AZURE_OPENAI_ENDPOINT" in away.err


def test_of_a_vendor_that_refuses_the_variable_of_its_key_is_named():
    url = "https://api.groq.com/openai/v1"
    assert key_hint(url, "GROQ_API_KEY") == "check the key in $GROQ_API_KEY"
    other = key_hint(url, None)
    assert other == "no key was sent: polypod models groq sends that in $GROQ_API_KEY"


def test_chains_of_the_configuration_are_listed_with_their_tiers(home: Home):
    assert "no chains" in home.polypod("models", "chain").err
    path = home.folder / "polypod.toml"
    path.write_text(
        '[[chain]]\nname = "careful"\nentries = ["ollama/qwen3", { model = "claude-opus-5" }]\n'
        'verifier = { command = ["true"] }\n[[chain]]\nname = "able"\nentries = ["claude-opus-5"]\n'
    )
    rows = home.polypod("models", "chain", "--json").lines
    assert [row["name"] for row in rows] == ["chain/able", "chain/careful"]
    assert rows[1]["note"].startswith("ollama/qwen3 → claude-opus-5; not used until ")
    assert "chain/careful" in home.polypod("models").out
    path.write_text("x = [")
    assert home.polypod("models", "chain").code == 2
    assert home.polypod("models").code == 0


def test_keys_that_are_exported_are_named_and_no_vendor_is_asked(home: Home):
    home.env["OPENAI_API_KEY"] = "secret-4711"
    done = home.polypod("models")
    assert "openai/…" in done.out
    assert "$OPENAI_API_KEY is set" in done.out
    assert "4711" not in done.out + done.err
