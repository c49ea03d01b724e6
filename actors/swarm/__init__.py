"""Many pods: which are alive, how they are started and restarted, and what is asked of all of them."""
