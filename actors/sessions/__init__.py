"""Session stores, session logs, and the way back from a log to a history."""
