"""What a command shows: events, entries and figures as lines for people, or as JSON lines."""
