"""The parts of the offline model: words in, intents, plans, and words chosen from texts."""
