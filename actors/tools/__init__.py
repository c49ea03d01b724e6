"""Tools: how they are declared, run and bounded, and the built-in ones."""
