"""Test doubles: model clients that play a script or a recording, for tests of agents."""

from actors.llm.cassette import CassetteClient
from actors.llm.scripted import Reply, ScriptedClient, call, say
from protocol.errors import ScriptExhausted, ScriptLeftover

__all__ = ["CassetteClient", "Reply", "ScriptExhausted", "ScriptLeftover", "ScriptedClient", "call", "say"]
