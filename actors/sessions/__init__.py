"""Session stores, session logs, and the replay that turns a log back into a history."""
