"""Imported before nvForest, as the real one must be."""
