"""A process that works off a queue: ``pool_process.py URL FOLDER [RUNNER]``. It ends when standard input does."""

import asyncio
import os
import sys
import time
from pathlib import Path

from child_kit import end_with_parent

from polypod import JobContext, PodSystem, Pool

URL, FOLDER = sys.argv[1], Path(sys.argv[2])


async def note(job: JobContext) -> str:
    """Have the moments of its beginning and end, and who did it, in a file of its own."""
    began = time.monotonic()
    path = FOLDER / f"{job.name}.{job.attempt}.{os.getpid()}"
    path.write_text(f"{began}\n")
    await asyncio.sleep(0.002)
    with path.open("a") as file:
        file.write(f"{time.monotonic()}\n")
    return f"by {os.getpid()}"


async def hang(job: JobContext) -> str:
    (FOLDER / f"{job.name}.{job.attempt}.{os.getpid()}").write_text("hangs\n")
    await asyncio.Event().wait()
    return ""


async def begin(job: JobContext) -> str:
    """Do half of it."""
    (job.cwd / "half.txt").write_text("half")
    return await hang(job)


async def main() -> None:
    runners = {
        "note": note,
        "hang": hang,
        "begin": begin,
        "shell": [sys.executable, "-I", "-S", str(FOLDER / "program.py")],
    }
    async with PodSystem(store=URL) as system:
        pool = Pool(system, {name: runners[name] for name in sys.argv[3:]}, dict.fromkeys(sys.argv[3:], 4))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await (pool.join() if sys.argv[3:] == ["note"] else asyncio.Event().wait())


end_with_parent()
asyncio.run(main())
