"""``polypod top``: agents and pods on one screen, and what a person does with them by keys."""
