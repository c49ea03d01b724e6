"""``Classifier``: has a model say which agent, and which of its models, a task should go to.

It asks its client, or starts its command, directly: it takes no slot of a pool and needs no store, so a task
that already has a slot may be classified without waiting for another.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from actors.llm.asking import answer_of
from actors.llm.base import LLMClient, Request
from actors.llm.output import values_in
from actors.runtime.arguments import check_seconds, command_of, several
from actors.runtime.children.environment import allowed_environment
from actors.runtime.children.launcher import Launcher
from actors.runtime.children.run_whole import run_whole
from actors.swarm.runners.one_task import GEMINI_ENV
from protocol.errors import ChildError, ClassificationRefused
from protocol.items import UserItem
from protocol.routing import Classification, SystemStatus

_SYSTEM = """\
You decide which agent does a task. Choose a small or local one where it is good enough, and a strong one for
what is hard; of agents that are as good, the one with the fewest tasks. Answer with one JSON object:
{"agent_type": "one of the agents", "model": "a model of it, or an empty text for its own", "reason": "why, in
one sentence"}"""
#: Characters of a task's instructions that are shown: which agent it is for, they say at their beginning.
_MOST = 8000


class _Said(Struct):
    """What a model answers."""

    agent_type: str
    model: str | None = None
    reason: str | None = None


class Classifier:
    """Decides which agent a task should go to.

    ``client`` is the model that is asked; without one ``command`` is started, which gets the question on its
    standard input and prints ``{"response": "the model's answer"}`` (``gemini --output-format json``).
    ``env`` names environment variables that it has besides those that every child has. ``agents`` are the
    existing agents, or a dict of what each is good for; None accepts any name. A question may take
    ``timeout`` seconds. ``launcher`` starts the command; without one the classifier has its own.
    """

    def __init__(
        self,
        client: LLMClient | None = None,
        command: str | Sequence[str] | None = None,
        agents: Iterable[str] | Mapping[str, str] | None = None,
        *,
        timeout: float = 30.0,
        env: Iterable[str] = GEMINI_ENV,
        launcher: Launcher | None = None,
    ) -> None:
        self._client = client
        check_seconds("timeout", timeout, zero=False)
        self._command = () if command is None else tuple(command_of("command", command))
        self._agents = None if agents is None else _described(agents)
        self._timeout = timeout
        self._env = several("env", env)
        self._launcher = launcher

    def __repr__(self) -> str:
        return f"<Classifier by {self._client or shlex.join(self._command) or 'nothing'}>"

    async def classify(
        self,
        name: str,
        instructions: str,
        status: SystemStatus = SystemStatus(),  # noqa: B008 - frozen
        agent: str | None = None,
    ) -> Classification:
        """Which agent the task ``name`` should go to, and why; ``agent`` is the one that was asked for.

        Raises ClassificationRefused for an answer that names no known agent, or one that is limited now, and
        where the command gives none; ModelError where the client's server fails.
        """
        question = _question(name, instructions, status, agent, self._agents)
        if self._client is not None:
            text = await self._answer(self._client, question)
        elif self._command:
            text = await self._run_command(question)
        else:
            raise ClassificationRefused(
                "the classifier has neither a client nor a command",
                hint="set [local_model] endpoint, or [pool] classifier, in polypod.toml",
            )
        return self._checked(text, status)

    async def _answer(self, client: LLMClient, question: str) -> str:
        deadline = time.monotonic() + self._timeout
        request = Request([UserItem.of(question)], _SYSTEM, output_schema={}, deadline=deadline)
        return (await answer_of(client, request)).item.text

    async def _run_command(self, question: str) -> str:
        launcher = self._launcher or Launcher()
        try:
            ran = await run_whole(
                launcher,
                self._command,
                cwd=Path.cwd(),
                env=allowed_environment(self._env),
                stdin=f"{_SYSTEM}\n\n{question}\n".encode("utf-8", "replace"),
                seconds=self._timeout,
            )
        except ChildError as error:
            raise ClassificationRefused(f"the classifier cannot be started: {error}") from error
        except TimeoutError as error:
            words = f"{self._command[0]} did not name an agent for the task within {self._timeout:g} s"
            raise ClassificationRefused(words) from error
        finally:
            if self._launcher is None:
                await launcher.aclose()
        text = next(_responses(ran.stdout.decode("utf-8", "replace")), None)
        if ran.code != 0 or text is None:
            why = ran.last_words[:200] or "it printed nothing"
            raise ClassificationRefused(f"{self._command[0]} ended with code {ran.code}: {why}")
        return text

    def _checked(self, text: str, status: SystemStatus) -> Classification:
        said = next(_answers(text), None)
        if said is None:
            raise ClassificationRefused(
                f"the classifier did not return an object with an agent_type: {text[:200]!r}"
            )
        agent = said.agent_type.strip()
        if not agent or (self._agents is not None and agent not in self._agents):
            known = f"the agents are {', '.join(self._agents)}" if self._agents else None
            raise ClassificationRefused(f"the classifier named {agent!r}, which is not an agent", hint=known)
        if status.rate_limited.get(agent, 0.0) > time.time():
            raise ClassificationRefused(
                f"the classifier named {agent}, which is rate-limited by its provider right now"
            )
        model = (said.model or "").strip()
        if model.startswith("-"):  # which the program of an agent would take for an option of its own
            raise ClassificationRefused(f"the classifier named {model[:100]!r}, which is not a model")
        return Classification(agent, model, (said.reason or "").strip())


def _described(agents: Iterable[str] | Mapping[str, str]) -> dict[str, str]:
    return dict(agents) if isinstance(agents, Mapping) else dict.fromkeys(several("agents", agents), "")


def _question(
    name: str, instructions: str, status: SystemStatus, agent: str | None, agents: dict[str, str] | None
) -> str:
    """The question to the model."""
    known = dict.fromkeys(status.active_tasks, "") if agents is None else agents
    lines = [_agent_line(each, good_for, status) for each, good_for in known.items()]
    shown = instructions if len(instructions) <= _MOST else f"{instructions[:_MOST]}…"
    return "\n".join(
        [
            *(["Agents:", *lines, ""] if lines else []),
            *([f"Wished for: {agent}", ""] if agent else []),
            f"Task: {name}",
            "",
            shown,
        ]
    )


def _agent_line(agent: str, good_for: str, status: SystemStatus) -> str:
    tasks = status.active_tasks.get(agent, 0)
    limited = ", limited now: do not choose it" if status.rate_limited.get(agent, 0.0) > time.time() else ""
    return f"- {agent}{f' ({good_for})' if good_for else ''}: {tasks} tasks{limited}"


def _answers(text: str) -> Iterator[_Said]:
    """The objects in a text that name an agent, in order."""
    for value in values_in(text):
        for each in value if isinstance(value, list) else (value,):
            with contextlib.suppress(msgspec.ValidationError):
                yield msgspec.convert(each, _Said)


def _responses(text: str) -> Iterator[str]:
    """What stands as ``response`` in the objects that a command printed."""
    for value in values_in(text):
        response: Any = value.get("response") if isinstance(value, dict) else None
        if isinstance(response, str):
            yield response
        elif isinstance(response, dict):
            yield msgspec.json.encode(response).decode()
