"""Measures how the code is built: classes, folders, import cycles, and the way of a run through the files."""
