"""The machinery: loops, actors, futures, the bus."""
