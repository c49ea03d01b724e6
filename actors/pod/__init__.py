"""One pod."""
