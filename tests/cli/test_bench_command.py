"""``polypod bench``: one's own manifest, tools and server, measured over real sockets."""

import asyncio
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from command_kit import Home, silent_server
from ports import unused_port

from actors import PodManifest, ScriptedClient, call, say, tool
from actors.cli.bench.figures import result_of
from actors.cli.bench.measuring import Plan, run_benchmark
from bench.server import CHUNKS, running
from protocol.errors import ModelError


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running() as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def answering(status: int, *headers: tuple[str, str]) -> Iterator[str]:
    """A server that answers every request by a status: its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            for header in (*headers, ("Content-Length", "0")):
                self.send_header(*header)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_address[1]}/v1"
        served.shutdown()
        thread.join()


def test_without_a_key_or_a_server_the_embedded_model_is_benched(home: Home):
    done = home.polypod("bench", "--model", "offline", "--turns", "4", "--pods", "2")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("offline, 4 turns by 2 pods in ")
    names = [line.split("  ")[0] for line in done.out.splitlines()]
    assert {"turns", "a turn", "first token after", "tokens", "processor", "errors"} <= set(names)


def test_a_manifest_and_its_server_are_measured_as_data(home: Home, server: str):
    manifest = home.write(
        "mine.toml", f'[model]\nscheme = "llama_cpp"\nmodel_id = "m"\nbase_url = "{server}/each/v1"\n'
    )
    done = home.polypod("bench", "--manifest", str(manifest), "--turns", "6", "--pods", "3", "--json")
    assert (done.code, done.err) == (0, "")
    [result] = done.lines
    assert (result["type"], result["model"], result["turns"]) == ("BenchResult", "llama_cpp/m", 6)
    assert (result["answers"], result["usage_told"], result["output_tokens"]) == (6, 6, 6 * CHUNKS)
    assert result["tokens_per_second"] > 0
    assert result["share"]["runtime"]["median"] < result["turn"]["median"]
    assert result["first_token"]["median"] <= result["turn"]["median"]
    assert result["cpu_seconds"] > 0


@pytest.mark.parametrize(("scheme", "rhythm"), [("llama_cpp", "burst"), ("anthropic", "each")])
def test_a_server_needs_no_manifest(home: Home, server: str, scheme: str, rhythm: str):
    url = f"{server}/{rhythm}/v1"
    done = home.polypod("bench", "--model", f"{scheme}/m", "--base-url", url, "--turns", "2", "--json")
    assert (done.code, done.lines[0]["output_tokens"]) == (0, 2 * CHUNKS)


def test_tools_of_ones_own_are_found_beside_the_manifest(home: Home):
    home.write("mine.py", "def shout(text: str) -> str:\n    return text.upper()\n")
    done = home.polypod("bench", "--model", "offline", "--tools", "mine:shout", "--turns", "1")
    assert done.code == 0


def test_a_manifest_that_is_not_there_is_named(home: Home):
    done = home.polypod("bench", "--manifest", "none.toml")
    assert (done.code, done.out) == (2, "")
    assert "none.toml: cannot be read" in done.err


def test_a_server_that_is_down_ends_the_bench_with_one_error(home: Home):
    url = f"http://127.0.0.1:{unused_port()}/v1"
    done = home.polypod("bench", "--model", "llama_cpp/m", "--base-url", url, "--pods", "4")
    assert (done.code, done.out) == (1, "")
    assert done.err.count("the connection was refused") == 1


def test_a_key_that_is_refused_ends_the_bench_with_that_error(home: Home):
    with answering(401) as url:
        done = home.polypod("bench", "--model", "openai/m", "--base-url", url)
    assert (done.code, done.out) == (1, "")
    assert "401" in done.err


def test_turns_that_fail_are_counted_by_kind_and_shown(home: Home):
    with answering(400) as url:
        command = ("bench", "--model", "llama_cpp/m", "--base-url", url, "--turns", "3", "--warmup", "0")
        done, data = home.polypod(*command), home.polypod(*command, "--json")
    assert (done.code, data.code) == (1, 1)
    assert "none succeeded" in done.out
    assert "3 invalid_request" in done.out
    assert "unknown: the server reported the usage of none of 0 answers" in done.out
    [result] = data.lines
    assert (result["outcomes"], result["tokens_per_second"], result["turn"]) == ({"failed": 3}, None, None)


def test_ctrl_c_prints_what_there_is(home: Home, server: str):
    command = ("bench", "--model", "llama_cpp/m", "--base-url", f"{server}/paced/v1", "--warmup", "0")
    with home.start(*command, "--turns", "1000", "--json", "--store", "jsonl:kept") as process:
        while not list((home.folder / "kept").rglob("*.jsonl")):  # the first turn has begun
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    result = json.loads(out)
    assert result["interrupted"]
    assert result["turns"] < 1000


def test_a_server_that_never_answers_is_left_when_the_time_is_over(home: Home):
    with silent_server() as (url, _):
        command = ("bench", "--model", "llama_cpp/m", "--base-url", url, "--pods", "2", "--timeout", "0.3")
        done, data = home.polypod(*command), home.polypod(*command, "--warmup", "0", "--json")
    assert (done.code, done.out) == (3, "")
    assert done.err == "time ran out before the first turn ended\n"
    assert (data.code, data.lines[0]["timed_out"], data.lines[0]["turns"]) == (3, True, 0)


def test_what_there_is_when_the_time_is_over_is_printed(home: Home):
    done = home.polypod("bench", "--model", "offline", "--turns", "10000000", "--timeout", "1")
    assert (done.code, done.err) == (3, "")
    assert " of 10,000,000 until time ran out by 1 pod in " in done.out
    assert "/s" in done.out


def test_a_time_that_is_none_is_bad_input(home: Home):
    done = home.polypod("bench", "--model", "offline", "--timeout", "0")
    assert (done.code, done.out) == (2, "")
    assert "--timeout" in done.err


# -- what is kept apart ------------------------------------------------------------------------------


@tool
def double(number: int) -> int:
    """Twice a number."""
    return 2 * number


def measured(script: list, **plan: object):
    async def main():
        client = ScriptedClient(script)
        bench = await run_benchmark(PodManifest.of(), tools=[double], client=client, plan=Plan(**plan))  # type: ignore[arg-type]
        client.check()
        return bench

    return asyncio.run(main())


def test_a_turn_with_a_tool_has_two_requests_and_the_time_of_its_tool():
    bench = measured([call("double", {"number": 2}), say("4")], turns=1, warmup=0)
    [turn] = bench.turns
    assert len(turn.asked) == 2
    assert turn.tools > 0
    assert all(request.ended is not None and request.first is not None for request in turn.asked)
    assert sum(request.waited + request.worked for request in turn.asked) + turn.tools < turn.seconds


def test_usage_that_was_not_reported_is_unknown_and_said_so():
    result = result_of(measured([say("a"), say("b", output_tokens=1)], turns=2, warmup=0), "m", None)
    assert (result.answers, result.usage_reported) == (2, 1)
    assert (result.output_tokens, result.tokens_per_second) == (None, None)


def test_a_request_that_was_sent_again_is_reported_and_is_no_error():
    late = ModelError("later", kind="overloaded", retry_after=0.0)
    result = result_of(measured([late, say("a")], turns=1, warmup=0), "m", None)
    assert (result.retried, result.errors, result.outcomes) == ({"overloaded": 1}, [], {"finished": 1})


def test_fresh_turns_have_a_session_each_and_others_share_one(tmp_path: Path):
    for fresh, sessions in ((True, 3), (False, 1)):
        store = f"jsonl:{tmp_path / str(fresh)}"
        measured([say("a")] * 3, turns=3, warmup=0, fresh=fresh, store=store)
        assert len(list((tmp_path / str(fresh)).glob("*.jsonl"))) == sessions


def test_a_failure_after_the_warm_up_stops_nothing():
    refused = ModelError("no", kind="invalid_request")
    result = result_of(measured([say("a"), refused, say("b"), say("c")], turns=3, warmup=1), "m", None)
    assert result.outcomes == {"failed": 1, "finished": 2}
    assert [(each.kind, each.count, each.message) for each in result.errors] == [("invalid_request", 1, "no")]
