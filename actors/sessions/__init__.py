"""Where a session is kept and how it becomes a history again."""
