"""Which models a client may have loaded: what may be asked for, where it must lie, what may be in it, and how much."""
