"""Child processes: one launcher a system, a warden for each child, and the ladder by which children end."""
