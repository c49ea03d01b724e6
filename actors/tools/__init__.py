"""What a pod can do, under its scope."""
