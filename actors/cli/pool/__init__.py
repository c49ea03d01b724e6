"""``polypod pool``: jobs that are queued, listed and cancelled, and the process that does them."""
