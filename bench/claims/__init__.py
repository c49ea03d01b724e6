"""The claims, a module for each, with its cases, floors and targets."""
