"""Three agents: one fails and is started again, one answers, one waits for a person's word."""

import asyncio

from polypod import (
    Agent,
    AgentContext,
    ApprovalRequested,
    PodManifest,
    PodSystem,
    Subscription,
    Swarm,
    UnknownAgent,
    tool,
)

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


async def take_up(swarm: Swarm, task: str, manifest: PodManifest) -> Agent:
    """The agent of the last process, which goes on where that was killed, or a new one."""
    name = manifest.pod.name
    try:
        agent = await swarm.get(name)
    except UnknownAgent:
        return await swarm.start(task, name=name, manifest=manifest, tools=[transfer], restart=AGAIN)
    if agent.is_cut_off:
        await agent.resume(tools=[transfer])
    return agent


async def show(questions: Subscription) -> None:
    async for question in questions:
        if isinstance(question, ApprovalRequested):
            print(f"polypod approve {question.approval_id} --store {STORE}", flush=True)


async def work() -> None:
    async with PodSystem(STORE) as system:
        asking = asyncio.create_task(show(system.subscribe(kinds=[ApprovalRequested])))
        swarm = Swarm(system, "swarm")
        agents = [
            await swarm.start("the news", fetch, name="fetcher", restart=AGAIN),
            await take_up(swarm, "hello", READER),
            await take_up(swarm, "use transfer to=ann amount=500", CLERK),
        ]
        for agent in agents:
            result = await agent.wait()
            print(f"{agent.spec.runner} {result.status}: {result.text.partition('.')[0]}")
    await asking  # its events end with the system


asyncio.run(work())
