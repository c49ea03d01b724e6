"""Routing: which agent and model does a task."""
