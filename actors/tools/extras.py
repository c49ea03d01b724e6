"""Keys of ``ToolContext.extras``: what a pod's assembly hands to built-in tools."""

from __future__ import annotations

#: A function from a pod's name to its task list: ``TaskStores`` of ``pod/history/task_list.py``.
TASKS = "tasks"
#: What searches lasting memory: ``Search`` of ``tools/memory.py``.
MEMORY = "memory"
#: A function from a pod's name to its commands: a ``PodCommands``, or None.
COMMANDS = "commands"
#: A function that gives what starts child processes, of which a system has one: a ``Launcher``.
LAUNCHER = "launcher"
#: Whether `fetch` may reach addresses that are not on the public internet: a bool.
ALLOW_PRIVATE = "allow_private"
#: A function from a pod's name to what has its sub-agents: ``SubAgents`` of ``tools/pods.py``.
PODS = "pods"
#: A coroutine function that starts an agent: of a pod's name, a task, a model and a provider.
AGENTS = "agents"
