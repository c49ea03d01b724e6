"""An agent of the Agent Client Protocol, by its SDK; what it does is what it is sent."""

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Any

from acp import (
    PROTOCOL_VERSION,
    Agent,
    InitializeResponse,
    NewSessionResponse,
    PromptResponse,
    RequestError,
    run_agent,
    start_tool_call,
    text_block,
    tool_content,
    tool_diff_content,
    update_agent_message,
    update_agent_thought,
    update_tool_call,
)
from acp.schema import (
    AgentCapabilities,
    LoadSessionResponse,
    PermissionOption,
    SetSessionConfigOptionResponse,
    ToolCallUpdate,
    Usage,
)

from actors.runtime.children.program import FUNCTIONS

OPTIONS = [
    PermissionOption(option_id="yes", name="Allow", kind="allow_once"),
    PermissionOption(option_id="ever", name="Always", kind="allow_always"),
    PermissionOption(option_id="no", name="Reject", kind="reject_once"),
]


#: By what name a helper is asked for it.
FORKED = "acp-agent"


class Program(Agent):
    def __init__(self) -> None:
        self.cancelled = asyncio.Event()

    def on_connect(self, conn: Any) -> None:
        self.client = conn

    async def initialize(self, protocol_version: int, *_: Any, **__: Any) -> InitializeResponse:
        can = AgentCapabilities(load_session="forgets" not in sys.argv)
        return InitializeResponse(protocol_version=PROTOCOL_VERSION, agent_capabilities=can)

    async def new_session(self, cwd: str, *_: Any, **__: Any) -> NewSessionResponse:
        if "locked" in sys.argv:
            raise RequestError.auth_required()
        if "models" in sys.argv:
            models = [{"value": "v/small", "name": "Small"}, {"value": "v/large", "name": "Large"}]
            option = {"id": "m", "name": "Model", "type": "select", "category": "model"}
            options = [{**option, "currentValue": "v/small", "options": models}]
            return NewSessionResponse.model_validate({"sessionId": "s-new", "configOptions": options})
        return NewSessionResponse(session_id="s-new")

    async def set_config_option(self, config_id: str, session_id: str, value: Any, **_: Any) -> Any:
        await self.client.session_update(
            session_id, update_agent_message(text_block(f"{config_id}={value} "))
        )
        return SetSessionConfigOptionResponse(config_options=[])

    async def load_session(self, cwd: str, session_id: str, *_: Any, **__: Any) -> LoadSessionResponse:
        await self.client.session_update(session_id, update_agent_message(text_block("said before")))
        return LoadSessionResponse()

    async def cancel(self, session_id: str, **_: Any) -> None:
        self.cancelled.set()

    async def prompt(self, session_id: str, prompt: list[Any], **_: Any) -> PromptResponse:
        self.cancelled.clear()
        text = prompt[0].text

        async def say(words: str) -> None:
            await self.client.session_update(session_id, update_agent_message(text_block(words)))

        if text == "wait":
            await say("waiting")
            await self.cancelled.wait()
            return PromptResponse(stop_reason="cancelled")
        if text == "fail":
            raise RequestError.internal_error({"details": "the model broke"})
        if text == "refuse":
            return PromptResponse(stop_reason="refusal")
        if text in {"edit", "edit and wait"}:
            await self.edit(session_id)
        else:
            for piece in ("did ", text):
                await say(piece)
        used = Usage(total_tokens=12, input_tokens=4, output_tokens=3, cached_read_tokens=5)
        return PromptResponse(stop_reason="cancelled" if self.cancelled.is_set() else "end_turn", usage=used)

    async def edit(self, session_id: str) -> None:
        update, call = self.client.session_update, "call-1"
        diff = tool_diff_content("a.txt", "new\n", "old\n")
        await update(session_id, update_agent_thought(text_block("hm")))
        await update(session_id, update_agent_message(text_block("I edit.")))
        await update(
            session_id,
            start_tool_call(
                call, "Edit a.txt", kind="edit", status="pending", content=[diff], raw_input={"path": "a.txt"}
            ),
        )
        asked = ToolCallUpdate(tool_call_id=call, title="Edit a.txt", kind="edit", content=[diff])
        answer = await self.client.request_permission(session_id, asked, OPTIONS)
        chosen = getattr(answer.outcome, "option_id", "cancelled")
        status = "completed" if chosen in {"yes", "ever"} else "failed"
        await update(
            session_id,
            update_tool_call(call, status=status, content=[tool_content(text_block(chosen)), diff]),
        )
        await update(session_id, update_agent_message(text_block(f"answer: {chosen}")))


def main() -> None:
    sys.stdout.write("this is not a message\n")
    sys.stdout.flush()
    asyncio.run(run_agent(Program()))


def prepare() -> None:
    """Have the helper of a launcher fork this program as ``FORKED``: its SDK takes long to import."""
    FUNCTIONS[FORKED.encode()] = _be_agent


def _be_agent(arguments: Sequence[bytes]) -> None:
    sys.argv[1:] = map(os.fsdecode, arguments)
    main()


if __name__ == "__main__":
    main()
