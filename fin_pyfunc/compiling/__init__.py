"""A fitted estimator made into faster forms of itself, each held to the estimator's own answers."""
