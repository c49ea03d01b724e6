"""Which agent, and which model, a task goes to; models that are asked in turn until an answer is accepted."""
