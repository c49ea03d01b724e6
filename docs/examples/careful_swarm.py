"""Three agents: one fails and is started again, one answers, one waits for a person's word."""

import asyncio

from polypod import AgentContext, ApprovalRequested, PodManifest, PodSystem, Swarm, tool

STORE = "sqlite:swarm.db"
READER = PodManifest.of(name="reader", model="offline")
CLERK = PodManifest.of(name="clerk", model="offline", approval=[{"tool": "transfer", "policy": "ask"}])
AGAIN = {"policy": "on_failure", "on_restart": "resume", "max_restarts": 3}
faults = ["no network yet"]


@tool
async def transfer(to: str, amount: int) -> str:
    """Send money."""
    return f"sent {amount} to {to}"


async def fetch(agent: AgentContext) -> str:
    """Any async function is an agent. This one fails at first."""
    if faults:
        raise ConnectionError(faults.pop())
    return f"fetched {agent.task}"


async def work() -> None:
    async with PodSystem(STORE) as system:
        swarm = Swarm(system, "swarm")
        with system.subscribe(kinds=[ApprovalRequested]) as questions:
            agents = [
                await swarm.start("the news", fetch, name="fetcher", restart=AGAIN),
                await swarm.start("hello", name="reader", manifest=READER, restart=AGAIN),
                await swarm.start(
                    "use transfer to=ann amount=500", name="clerk", manifest=CLERK, tools=[transfer]
                ),
            ]
            question = await anext(questions)
            assert isinstance(question, ApprovalRequested)
            print(f"polypod approve {question.approval_id} --store {STORE}", flush=True)
        for agent in agents:
            result = await agent.wait()
            print(f"{agent.spec.runner} {result.status}: {result.text.partition('.')[0]}")


asyncio.run(work())
