"""The SQLite store: one file for all sessions."""
