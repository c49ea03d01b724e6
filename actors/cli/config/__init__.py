"""``polypod config``: what is set, what will come of it, and a person's word that they have looked at it."""
