"""The one data set and the one forest that every contender serves.

It imports nothing of this project, and no pandas: it also runs in the environments of other servers, where
``python data.py FILE`` trains the same forest from the same seed with the scikit-learn that is there.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

TREES, FEATURES, CLASSES, TRAIN_ROWS = 200, 20, 3, 5000
NAMES = [f"f{i}" for i in range(FEATURES)]


def make_data(rows: int = TRAIN_ROWS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and to ask about.

    Returns
    -------
    ndarray of shape (rows, FEATURES), float64
    ndarray of shape (rows,), int
        Labels 0, 1, 2.
    """
    from sklearn.datasets import make_classification

    X, y = make_classification(rows, FEATURES, n_informative=10, n_classes=CLASSES, random_state=seed)
    return X, y


def train_forest(X: Any, y: np.ndarray, trees: int = TREES, seed: int = 0) -> Any:
    """A random forest that scores with one thread, which is the fastest for one row."""
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(trees, random_state=seed, n_jobs=-1).fit(X, y)
    return forest.set_params(n_jobs=None)


if __name__ == "__main__":
    import joblib

    joblib.dump(train_forest(*make_data()), sys.argv[1])
