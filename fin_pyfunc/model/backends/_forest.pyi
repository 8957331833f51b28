"""Types of `_forest.c`."""

from typing import Any

import numpy as np

class Forest:
    def __new__(
        cls,
        n_features: int,
        roots: np.ndarray[Any, np.dtype[np.int64]],
        left: np.ndarray[Any, np.dtype[np.int32]],
        right: np.ndarray[Any, np.dtype[np.int32]],
        feature: np.ndarray[Any, np.dtype[np.int32]],
        threshold: np.ndarray[Any, np.dtype[np.float32]],
        nan_left: np.ndarray[Any, np.dtype[np.bool_]],
        row: np.ndarray[Any, np.dtype[np.int32]],
        values: np.ndarray[Any, np.dtype[np.float64]],
        /,
    ) -> Forest: ...
    def score(
        self, X: np.ndarray[Any, np.dtype[np.float64]], out: np.ndarray[Any, np.dtype[np.float64]], /
    ) -> None: ...
