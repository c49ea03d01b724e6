"""``polypod bench``: measures a user's own set-up."""
