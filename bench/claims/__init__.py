"""The claims: a file for each, with its cases, its floors and its targets."""
