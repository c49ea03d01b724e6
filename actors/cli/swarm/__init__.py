"""``polypod swarm``: agents of one folder, looked after by one process, and the commands that ask it."""
