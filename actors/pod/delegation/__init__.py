"""Sub-agents of a pod: what they are given, how they begin and end, and what its model asks of them."""
