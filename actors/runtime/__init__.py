"""The actor runtime: event loops, actors, futures, the event bus."""
