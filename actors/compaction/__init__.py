"""Compaction, pure: when to fold a history, where to cut it, and what takes its place."""
