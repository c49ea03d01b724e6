"""A pod's session: opened or restored, recorded and committed, forked, read back, released."""
