"""Sub-agents of a pod: what they are given, how they begin and end, and the tools to manage them."""
