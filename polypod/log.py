"""What pods do as lines of structlog's, with secrets taken out and the words of conversations left out.

``configure()`` once, then follow the events of a system beside its work::

    logging = asyncio.create_task(follow(system.subscribe(kinds=LOGGED)))

A program with a configuration of its own puts ``redact`` among its processors instead.
"""

from actors.runtime.log import LOGGED, Level, configure, follow, redact

__all__ = ["LOGGED", "Level", "configure", "follow", "redact"]
