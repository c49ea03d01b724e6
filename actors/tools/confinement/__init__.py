"""How the programs that tools start are confined to a pod's scope."""
