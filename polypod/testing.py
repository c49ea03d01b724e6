"""Test doubles: model clients that play a script or a recording, or call a function, for tests of agents."""

from actors.llm.cassette import CassetteClient
from actors.llm.function_client import FunctionClient
from actors.llm.scripted import Reply, ScriptedClient, call, say
from protocol.errors import ScriptExhausted, ScriptLeftover

__all__ = [
    "CassetteClient",
    "FunctionClient",
    "Reply",
    "ScriptExhausted",
    "ScriptLeftover",
    "ScriptedClient",
    "call",
    "say",
]
