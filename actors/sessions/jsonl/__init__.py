"""The JSON-lines store: one file a session."""
