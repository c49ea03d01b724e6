"""A minimal model for a pod that is a process, which imports this module."""

from actors.llm.scripted import ScriptedClient, say


def short_answers() -> ScriptedClient:
    """A client that says one word, a thousand times."""
    return ScriptedClient([say("yes", input_tokens=10, output_tokens=1)] * 1000)
