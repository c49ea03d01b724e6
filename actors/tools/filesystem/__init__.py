"""The tools that work with files under the scope, and what they share: paths, patterns, edits."""
