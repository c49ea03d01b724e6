"""Starts child processes and ends them with everything they leave behind: a launcher for each system, a
warden for each child, and the ladder of signals by which a child ends.
"""
