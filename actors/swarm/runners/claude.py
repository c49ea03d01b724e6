"""``claude``: Claude Code's command line, one process for many tasks, spoken to in stream-json."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import msgspec

from actors.runtime.children.child import Child
from actors.swarm.runners.base import Launch, Permission
from actors.swarm.runners.claude_format import ClaudeTranslator
from actors.swarm.runners.lines import Ask, inner, objects, text_of
from actors.swarm.runners.piped import PipedProgram
from actors.swarm.runners.program import ProgramLife
from actors.swarm.runners.stream import Recorder

#: Its logins and servers, where it does not find them in its own files.
CLAUDE_ENV = (
    *("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "CLAUDE_CODE_OAUTH_TOKEN"),
    *("CLAUDE_CONFIG_DIR", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy"),
)
_FLAGS = (
    *("-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose"),
    *("--include-partial-messages", "--replay-user-messages", "--permission-prompt-tool", "stdio"),
)


class ClaudeProgram(PipedProgram):
    """Words that are sent within a run join it at the next tool; behind the last one they begin the next run.

    Its permissions are asked for by its standard output, and answered on its input, which stays open.
    """

    joins = True
    end_signal: int | None = None
    _translator: ClaudeTranslator

    def __init__(
        self,
        launch: Launch,
        recorder: Recorder,
        command: tuple[str, ...],
        env: tuple[str, ...],
        retries: int,
    ) -> None:
        super().__init__(launch, ClaudeTranslator(recorder), (*CLAUDE_ENV, *env))
        self._command = command
        self._retries = retries
        self._own_session = launch.session or str(uuid.uuid4())
        #: Questions for permission that are open, by their ids.
        self._asked: dict[str, asyncio.Task[Any]] = {}
        self._requests = 0

    @property
    def session(self) -> str | None:
        """The id of its conversation, which it is given."""
        return self._translator.session or self._own_session

    @property
    def is_ready(self) -> bool:
        """Always: it takes words from the beginning, and prints nothing before it has some."""
        return True

    @property
    def is_idle(self) -> bool:
        """Whether it has taken up all words that it was sent."""
        return self._translator.unanswered == 0

    def argv(self, task: str | None) -> list[str]:  # noqa: ARG002 - it goes by the input
        """Its command. Raises AgentError."""
        self.refuse_provider(self._command[0])
        model = ["--model", self.launch.model] if self.launch.model else []
        goes_on = "--resume" if self.launch.session else "--session-id"
        return [*self._command, *_FLAGS, *model, goes_on, self._own_session]

    def environment(self) -> dict[str, str]:
        """Its variables, with the bound of its own retries."""
        return {**super().environment(), "CLAUDE_CODE_MAX_RETRIES": str(self._retries)}

    async def begin(self, life: ProgramLife, child: Child, task: str | None) -> None:  # noqa: ARG002
        """Send the task."""
        if task is not None:
            await self.send(child, task)

    async def take(self, life: ProgramLife, data: bytes) -> None:
        """Publish what it printed, and have a person asked what it asks."""
        await super().take(life, data)
        for ask in self._translator.take_asked():
            if not ask.question:
                if (task := self._asked.pop(ask.id, None)) is not None:
                    task.cancel()
            else:
                self._asked[ask.id] = life.spawn(self._answer(life, ask))

    async def send(self, child: Child, text: str) -> None:
        """Send words of a user."""
        self._translator.unanswered += 1
        await _write(child, {"type": "user", "message": {"role": "user", "content": text}})

    async def interrupt(self, child: Child) -> bool:
        """Ask it to end its run."""
        self._translator.interrupted = True
        self._requests += 1
        request = {"type": "control_request", "request_id": f"polypod-{self._requests}"}
        await _write(child, {**request, "request": {"subtype": "interrupt"}})
        return True

    async def ask_to_end(self, child: Child) -> None:
        """Close its input, which ends it."""
        if child.stdin is not None:
            child.stdin.close()

    async def _answer(self, life: ProgramLife, ask: Ask) -> None:
        """Ask a person, and report the answer."""
        response: dict[str, Any] = {"request_id": ask.id}
        if text_of(ask.question, "subtype") != "can_use_tool":
            response |= {"subtype": "error", "error": "polypod does not support this request"}
        else:
            response |= {"subtype": "success", "response": await self._decide(life, ask.question)}
        self._asked.pop(ask.id, None)
        if (child := life.child) is not None:
            await _write(child, {"type": "control_response", "response": response})

    async def _decide(self, life: ProgramLife, question: dict[str, Any]) -> dict[str, Any]:
        arguments = inner(question, "input")
        permission = Permission(
            tool=text_of(question, "tool_name"),
            call_id=text_of(question, "tool_use_id"),
            arguments=arguments,
            why=text_of(question, "decision_reason", "description") or None,
        )
        answer = await life.ask(permission)
        if not answer.approved:
            return {"behavior": "deny", "message": answer.note or "a person denied this"}
        decided: dict[str, Any] = {"behavior": "allow", "updatedInput": answer.arguments or arguments}
        if answer.always:  # for this session: its other places are files of the project and of the user
            suggested = objects(question, "permission_suggestions")
            decided["updatedPermissions"] = [{**each, "destination": "session"} for each in suggested]
        return decided


async def _write(child: Child, line: dict[str, Any]) -> None:
    """Raises ChildNotListening."""
    assert child.stdin is not None
    await child.stdin.write(msgspec.json.encode(line) + b"\n")
