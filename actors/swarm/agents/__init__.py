"""Agents behind one contract: pods, functions and foreign programs, each with one record and one end."""
