"""When and where to fold a history: pure."""
