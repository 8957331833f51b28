"""Models as people have them, each logged, served by every backend, and compared with its own estimator.

``python -m tests.zoo`` checks all of them and writes docs/models.md.
"""
