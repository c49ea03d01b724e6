"""Lasting memory: a folder of notes, and the two actors that fill it beside the pods."""
