"""Which agent, and which model, a task goes to; who says whether an answer is good enough."""
