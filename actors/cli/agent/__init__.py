"""``polypod agent``: a pod as a process that prints lines and listens on a socket."""
