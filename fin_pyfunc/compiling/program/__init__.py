"""Fitted estimator -> program: each of scikit-learn's steps by what it holds, in its own arithmetic."""
