"""Pods that are processes of their own: how they are started, reached, and restarted."""
