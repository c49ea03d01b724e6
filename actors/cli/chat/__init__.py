"""``polypod chat``: a session at the terminal, turn by turn."""
