"""Agents behind one contract: pods, functions and programs of others, each with one record and one end."""
