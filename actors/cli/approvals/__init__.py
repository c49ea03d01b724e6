"""Approvals at the command line: asked for at the terminal of a run, or answered from another process."""
