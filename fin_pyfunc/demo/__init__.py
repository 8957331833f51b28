"""A demo model on generated FX bars."""
