"""A fitted pipeline as a flat list of operations on float64 matrices: the same for one row and for many."""
