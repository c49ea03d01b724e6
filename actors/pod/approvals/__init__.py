"""Approvals in a pod: which of its calls wait for a person, and how they are answered."""
