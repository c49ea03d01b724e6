"""The event bus: who subscribes to which events, and how events wait for their subscribers."""
