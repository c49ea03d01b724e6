"""Compaction, pure: decides when to compact a history and where to cut it, and writes what replaces the cut
part.
"""
