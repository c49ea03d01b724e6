"""What a pod does for lasting memory: when its jobs run, and what a new session recalls."""
