"""Escalation chains: models that are asked one after the other until an answer is accepted."""
