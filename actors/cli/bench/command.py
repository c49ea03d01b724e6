"""``polypod bench``: turns a second of the user's own set-up, and where a turn's time goes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from actors.cli import options
from actors.cli.bench.figures import BenchResult, heading, lines, result_of
from actors.cli.bench.measuring import PROMPT, Bench, Plan, run_benchmark
from actors.cli.display.terminal import Terminal
from actors.cli.display.views import put_json
from actors.cli.errors import FAILED, LIMIT, Exit
from actors.cli.interrupts import catching, farewell, run_interruptible
from actors.cli.pods.manifest import Wishes, manifest_for, name_in_errors
from actors.cli.streams import private_stdin
from actors.cli.user_tools import load_named_tools
from actors.pod.client_factory import label
from protocol.manifest import PodManifest


@click.command
@click.option(
    "--manifest",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A pod manifest in TOML; without one the pod has no system prompt and no tools.",
)
@options.model
@options.base_url
@options.tools
@click.option(
    "--turns",
    metavar="N",
    default=20,
    show_default=True,
    type=click.IntRange(min=1),
    help="The number of turns in total.",
)
@click.option(
    "--pods",
    metavar="N",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    help="The number of pods that run them at once.",
)
@click.option("--prompt", default=PROMPT, show_default=True, metavar="TEXT", help="The prompt of each turn.")
@click.option(
    "--warmup",
    metavar="N",
    default=1,
    show_default=True,
    type=click.IntRange(min=0),
    help="Turns of each pod before counting begins; a failed one ends the bench with its error.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=options.Seconds(min=0, min_open=True),
    help="End the bench after this time, including the warm-up, and print the results so far  "
    "[default: never]",
)
@click.option("--fresh", is_flag=True, help="Run each turn in its own pod and session.")
@click.option(
    "--store",
    metavar="URL",
    default="memory:",
    show_default=True,
    callback=options.checked_store,
    help="Where sessions are kept: sqlite:FILE or jsonl:DIR adds the cost of keeping them.",
)
@options.as_json
def bench(
    manifest: Path | None,
    model: str | None,
    base_url: str | None,
    tools: tuple[str, ...],
    turns: int,
    pods: int,
    prompt: str,
    warmup: int,
    timeout: float | None,
    fresh: bool,
    store: str,
    as_json: bool,
) -> None:
    """Measure your own set-up: turns per second, time to first token, tokens per second, and how much of a
    turn the model, the tools and polypod take.

    Ctrl-C, or the end of --timeout (exit code 3), ends the bench and prints the results so far.
    """
    private_stdin()
    terminal = Terminal()
    chosen, notes = manifest_for(Wishes(manifest, model=model, base_url=base_url), _bare)
    if not as_json:
        for note in notes:
            terminal.note(note)
    plan = Plan(turns, pods, prompt, warmup, fresh, store, timeout)
    with name_in_errors(manifest):
        caught: list[int] = []
        measured = run_interruptible(_run_benchmark(chosen, load_named_tools(tools), plan, terminal, caught))
    terminal.idle()
    result = result_of(measured, label(chosen.model), chosen.model.base_url)
    put_json(result) if as_json else _show(result, terminal)
    if measured.cut_short:
        raise Exit(LIMIT if measured.timed_out else 128 + caught[0])
    if result.errors:
        raise Exit(FAILED)


def _bare() -> PodManifest:
    return PodManifest.of(name="bench")


async def _run_benchmark(
    manifest: PodManifest, tools: tuple[object, ...], plan: Plan, terminal: Terminal, caught: list[int]
) -> Bench:
    interrupted = asyncio.Event()

    def catch(number: int) -> None:
        caught.append(number)
        interrupted.set()

    def show_progress(so_far: Bench) -> None:
        terminal.busy(f"{len(so_far.turns):,} of {plan.turns:,} turns")

    terminal.busy("warming up")
    try:
        with farewell(terminal.idle), catching(catch):
            return await run_benchmark(
                manifest, tools=tools, plan=plan, on_turn=show_progress, interrupted=interrupted
            )
    finally:
        terminal.idle()


def _show(result: BenchResult, terminal: Terminal) -> None:
    if not result.turns:
        why = "time ran out" if result.timed_out else "interrupted"
        terminal.note(f"{why} before the first turn ended", "error")
        return
    shown = (f"{name:<18} {words}".rstrip() for name, words in lines(result))
    terminal.write("\n".join([heading(result), "", *shown]) + "\n")
