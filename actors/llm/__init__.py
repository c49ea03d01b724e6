"""Clients for language models, behind one contract."""
