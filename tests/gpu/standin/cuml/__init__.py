"""Estimators with the interface of cuML's, each a real estimator of scikit-learn inside.

As cuML's documentation has it (26.10): arrays of cupy come back, `as_sklearn` and `from_sklearn` convert.
"""
