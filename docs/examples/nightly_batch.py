"""Fifty tickets are sorted over night, whatever happens to the process: start it again to go on."""

import asyncio
import re
from dataclasses import dataclass

import msgspec

from polypod import EscalationChain, Job, JobContext, PodManifest, PodSystem, Pool, Request, pod_runner
from polypod.testing import FunctionClient, Reply, say


@dataclass
class Ticket:
    """What a model is to make of a ticket."""

    number: int
    urgent: bool


async def small(request: Request) -> Reply:
    """Stands in for a model on this machine. Every tenth ticket is beyond it."""
    await asyncio.sleep(0.01)
    number = number_in(request)
    answer = msgspec.json.encode(Ticket(number, urgent=number % 2 == 0)).decode()
    return say("Hard to say." if number % 10 == 0 else answer, input_tokens=20, output_tokens=10)


def large(request: Request) -> Reply:
    """Stands in for a model in a cloud."""
    answer = msgspec.json.encode(Ticket(number_in(request), urgent=True)).decode()
    return say(answer, input_tokens=20, output_tokens=10)


def number_in(request: Request) -> int:
    return int(re.findall(r"ticket (\d+)", request.items[-1].text)[-1])


CHAIN = EscalationChain(
    ["ollama/small", "claude-opus-5"],
    local=FunctionClient(small),
    cloud=FunctionClient(large),
    verifier=lambda _skill, _task, _output: True,  # what is not a Ticket is rejected before it is asked
)
SORTER = PodManifest.of(name="sorter", system_prompt="Sort tickets.", tokens=2_000)  # each ticket's


async def archive(job: JobContext) -> str:
    """Plain code is a runner too."""
    return f"archived: {job.instructions}"


async def main() -> None:
    jobs = [Job(f"ticket {n}", f"ticket {n}: it does not start", "sorter") for n in range(1, 46)]
    jobs += [Job(f"old {n}", f"ticket {n} of last year", "archive") for n in range(1, 6)]
    async with PodSystem("sqlite:night.db", budget={"cost_usd": 1.0}) as system:  # this process's
        sorter = pod_runner(SORTER, client=CHAIN, output=Ticket)
        pool = Pool(system, {"sorter": sorter, "archive": archive}, limits={"sorter": 4, "archive": 1})
        # All of them are kept, or none: who comes after a crash finds them, and submits none twice.
        queued = await pool.executions() or await pool.submit_all(jobs)
        ended = await asyncio.gather(*(pool.wait_for(each.id) for each in queued))
    sorted_ = [each for each in ended if each.agent == "sorter" and each.status == "done"]
    tickets = [msgspec.json.decode(each.result or "", type=Ticket) for each in sorted_]
    print(f"{len(ended)} jobs, {sum(each.status == 'done' for each in ended)} done")
    print(f"{sum(each.urgent for each in tickets)} of {len(tickets)} tickets are urgent")
    print(f"${sum(each.cost or 0 for each in ended):.4f}")


asyncio.run(main())
