"""Many pods: supervision starts those again that fail."""
