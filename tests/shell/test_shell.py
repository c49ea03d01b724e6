"""`shell` runs a command and says what it wrote and how it ended, whatever the command does."""

import os
import stat
from pathlib import Path

import pytest
from process_kit import DEAF, marked
from shell_kit import at_work, manifest, marking, outputs, results_of, run, texts_of

from actors.llm.scripted import ScriptedClient, call, say
from actors.system import PodSystem
from protocol.events import ToolResulted
from protocol.manifest import PodManifest
from protocol.scope import Scope

CAP = 4096


async def test_output_errors_and_exit_code_are_reported() -> None:
    assert await texts_of(run("echo out; echo err >&2; exit 3"), run("true"), run("printf 'no end'")) == [
        "out\nerr\n[exit code 3]",
        "[exit code 0]",
        "no end\n[exit code 0]",
    ]


async def test_a_shell_is_found_by_the_path_of_now_and_without_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert await texts_of(run("echo here")) == ["here\n[exit code 0]"]
    monkeypatch.undo()
    assert await texts_of(run("echo ${BASH_VERSION:+bash}here")) == ["bashhere\n[exit code 0]"]


async def test_a_command_that_fails_is_no_failure_of_the_tool() -> None:
    results, _ = await results_of(run("exit 1"))
    assert not results[0].is_error


async def test_signals_are_reported_by_name() -> None:
    texts_shown = await texts_of(run("kill -SEGV $$"), run("sh -c 'kill -KILL $$'; exit $?"), run("exit 255"))
    assert texts_shown[0] == "[ended by SIGSEGV]"
    assert texts_shown[1].endswith("[exit code 137, as of a program ended by SIGKILL]")
    assert texts_shown[2] == "[exit code 255]"


async def test_a_command_begins_in_the_folder_of_the_pod_each_time(tmp_path: Path) -> None:
    texts_shown = await texts_of(
        run("cd /; export X=1; pwd"), run("pwd; echo $X"), pod={"pwd": str(tmp_path)}
    )
    assert texts_shown == ["/\n[exit code 0]", f"{tmp_path}\n\n[exit code 0]"]


async def test_a_command_begins_in_a_folder_of_the_scope_where_that_leaves_out_the_pods(
    tmp_path: Path,
) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    texts_shown = await texts_of(run("pwd"), pod={"pwd": str(tmp_path)}, scope=Scope.readable(str(inside)))
    assert texts_shown == [f"{inside}\n[exit code 0]"]


async def test_a_command_has_no_secret_no_input_and_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    texts_shown = await texts_of(run("env"), run("cat; tty; (echo x > /dev/tty) 2>/dev/null || echo none"))
    assert "secret" not in texts_shown[0]
    assert texts_shown[1] == "not a tty\nnone\n[exit code 0]"


async def test_a_command_has_no_descriptor_of_ours(tmp_path: Path) -> None:
    handle = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(handle, True)
    try:
        texts_shown = await texts_of(run("ls -l /proc/self/fd | grep -c -- '->'; ls /proc/$$/fd | wc -l"))
    finally:
        os.close(handle)
    assert str(tmp_path) not in texts_shown[0]


async def test_a_command_that_takes_too_long_is_ended_and_what_it_wrote_is_reported(mark: str) -> None:
    texts_shown = await texts_of(run(marking(mark, "echo begun; (sleep 1000 &) ; sleep 1000"), timeout=0.3))
    assert texts_shown == ["begun\n[not done after 0.3 s, so it was stopped: ended by SIGTERM]"]
    assert not marked(mark)


async def test_a_command_that_ignores_signals_is_killed(mark: str) -> None:
    texts_shown = await texts_of(
        run(marking(mark, f"{DEAF} echo deaf; while true; do sleep 1; done"), timeout=0.3)
    )
    assert texts_shown == ["deaf\n[not done after 0.3 s, so it was stopped: ended by SIGKILL]"]


async def test_a_grandchild_that_holds_the_output_holds_nobody_up(mark: str) -> None:
    texts_shown = await texts_of(run(marking(mark, "(setsid sleep 1000 &) ; sleep 1000 & echo done")))
    assert texts_shown == ["done\n[exit code 0]"]
    assert not marked(mark)


async def test_output_is_reported_while_the_command_runs(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    async with at_work(f"echo working; read x < {gate}; echo $x", goes_on=True) as (_, pod, running):
        with pod.subscribe(ToolResulted) as events:
            gate.write_text("done\n")
            await running
            (result,) = events.drain()
    assert isinstance(result, ToolResulted)
    assert result.item.text == "working\ndone\n[exit code 0]"


@pytest.mark.parametrize("how", ["cancel", "pause", "stop"])
async def test_a_command_ends_with_its_call(how: str, mark: str) -> None:
    command = marking(mark, "echo up; (setsid sleep 1000 &); sleep 1000")
    async with at_work(command, grace=5.0) as (_, pod, running):
        await getattr(pod, how)()
        assert not marked(mark)
        await running


async def test_a_command_that_ignores_signals_ends_with_its_call_too(mark: str) -> None:
    async with at_work(marking(mark, f"{DEAF} echo up; while true; do sleep 1; done"), grace=5.0) as (
        _,
        pod,
        _run,
    ):
        await pod.cancel()
        assert not marked(mark)


async def test_leaving_the_system_ends_a_command(mark: str) -> None:
    async with at_work(marking(mark, f"{DEAF} echo up; while true; do sleep 1; done"), grace=0.01):
        pass
    assert not marked(mark)


async def test_long_output_is_cut_in_the_middle_and_kept_whole_in_a_private_file(tmp_path: Path) -> None:
    system = PodSystem(outputs=tmp_path / "kept")
    results, _ = await results_of(
        run("seq 1000000"), system=system, tools={"builtin": ["shell"], "output_cap": CAP}
    )
    text = results[0].text
    (kept,) = outputs(tmp_path / "kept")
    assert kept.read_bytes() == b"".join(b"%d\n" % number for number in range(1, 1_000_001))
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert results[0].kept == str(kept)
    assert text.startswith("1\n2\n3\n")
    assert text.endswith("999999\n1000000\n[exit code 0]")
    assert f"bytes cut here; the whole output is in {kept} …]" in text
    assert len(text.encode()) < CAP + 500


async def test_output_that_just_fits_is_kept_nowhere(tmp_path: Path) -> None:
    system = PodSystem(outputs=tmp_path / "kept")
    results, _ = await results_of(
        run(f"head -c {CAP} /dev/zero | tr '\\0' x"),
        system=system,
        tools={"builtin": ["shell"], "output_cap": CAP},
    )
    assert results[0].text == "x" * CAP + "\n[exit code 0]"
    assert results[0].kept is None
    assert not outputs(tmp_path / "kept")


async def test_output_without_end_is_bounded_on_disk_in_memory_and_in_what_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.tools.shell.recording.KEPT_MOST", 1 << 20)
    system = PodSystem(outputs=tmp_path / "kept")
    results, progress = await results_of(
        run("head -c 30000000 /dev/zero | tr '\\0' x"),
        system=system,
        tools={"builtin": ["shell"], "output_cap": CAP},
    )
    (kept,) = outputs(tmp_path / "kept")
    assert kept.stat().st_size == 1 << 20
    assert f"of 30,000,000 bytes cut here; the first 1 MB of the output is in {kept} …]" in results[0].text
    assert all(len(each.text) <= CAP for each in progress)


async def test_where_nothing_can_be_kept_the_output_is_cut_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    system = PodSystem(outputs=tmp_path / "kept")
    results, _ = await results_of(
        run("seq 1000000"), system=system, tools={"builtin": ["shell"], "output_cap": CAP}
    )
    assert results[0].kept is None
    assert "bytes cut here …]" in results[0].text


async def test_output_that_is_no_text_is_kept_and_not_shown(tmp_path: Path) -> None:
    system = PodSystem(outputs=tmp_path / "kept")
    results, progress = await results_of(run("head -c 3000 /dev/urandom"), system=system)
    (kept,) = outputs(tmp_path / "kept")
    assert results[0].text == f"[3,000 bytes of binary data; the whole output is in {kept}]\n[exit code 0]"
    assert kept.stat().st_size == 3000
    assert not progress


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        (r"\033[1;31mred\033[0m \033]0;title\007plain", "red plain"),
        (r"10%%\r50%%\r100%%\ndone", "100%\ndone"),
        (r"one\r\ntwo\r\n", "one\ntwo\n"),
        (r"caf\303\251 \303\050 \377", "café �( �"),
        (r"b\bbo\bol\bld", "bold"),
        (r"a\0b", "ab"),
    ],
)
async def test_what_is_for_a_terminal_becomes_plain_text(printed: str, shown: str) -> None:
    (text,) = await texts_of(run(f"printf '{printed}'"))
    assert text == f"{shown.removesuffix(chr(10))}\n[exit code 0]"


async def test_what_no_system_takes_as_a_command_is_reported_in_words() -> None:
    results, _ = await results_of(run("echo \0"), run("x" * 3_000_000))
    assert results[0].is_error
    assert "the command was not run: cannot start" in results[0].text
    assert results[1].is_error
    assert "Argument list too long (write the long part to a file" in results[1].text


@pytest.mark.parametrize(
    "arguments", [{"command": ""}, {"command": "true", "timeout": 0}, {"command": "true", "timeout": 1e9}]
)
async def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, object]) -> None:
    results, _ = await results_of(call("shell", arguments))
    assert results[0].is_error
    assert "invalid arguments" in results[0].text


async def test_without_a_rule_a_command_that_nothing_confines_is_not_run_where_nobody_is_asked(
    tmp_path: Path,
) -> None:
    file = tmp_path / "made"
    async with PodSystem() as system:
        client = ScriptedClient([run(f"touch {file}"), say("done")])
        of = PodManifest.of(tools={"builtin": ["shell"]}, sandbox={"mode": "off"})
        pod = await system.spawn(of, client=client)
        with pod.subscribe(ToolResulted) as events:
            await pod.run("go")
            (result,) = events.drain()
    assert isinstance(result, ToolResulted)
    assert "shell was not run: it needs a person's approval" in result.item.text
    assert not file.exists()


async def test_a_rule_of_its_own_lets_it_run_or_not(tmp_path: Path) -> None:
    rules = [
        {"tool": "shell", "policy": "deny", "match": {"command": "rm*"}},
        {"tool": "shell", "policy": "allow"},
    ]
    texts_shown = await texts_of(run("echo hi"), run("rm -rf x"), approval=rules)
    assert texts_shown[0] == "hi\n[exit code 0]"
    assert "shell was not run: it is denied" in texts_shown[1]


async def test_commands_wait_for_a_place_where_the_system_has_no_more_processes(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    async with at_work(f"echo up; read x < {gate}", goes_on=True, processes=1) as (system, _, first):
        client = ScriptedClient([run("echo never", timeout=0.1), run("echo in time"), say("done")])
        other = await system.spawn(manifest(), client=client)
        with other.subscribe(ToolResulted) as events:
            second = other.run("go")
            refused = await anext(events)
            gate.write_text("\n")
            await first
            await second
            (waited,) = events.drain()
    assert isinstance(refused, ToolResulted)
    assert isinstance(waited, ToolResulted)
    assert refused.item.is_error
    assert "the limit of 1 child processes is reached (bash)" in refused.item.text
    assert waited.item.text == "in time\n[exit code 0]"
