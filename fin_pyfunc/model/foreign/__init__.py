"""Models that were not logged by this project: what can be told of their features, and how they are asked."""
