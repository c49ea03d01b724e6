"""polypod: an actor-model runtime for LLM agents."""
