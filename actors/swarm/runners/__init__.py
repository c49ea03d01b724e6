"""Runners: how an agent's program is started, and what it prints becomes events."""
