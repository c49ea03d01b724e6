"""Commands that list, show, compact, move, check and delete the sessions of a store, without making pods."""
