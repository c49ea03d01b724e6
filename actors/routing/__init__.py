"""Which agent and which model a task goes to, and what judges whether an answer is good enough."""
