"""Types of `_trees.c`."""

from typing import Any

import numpy as np

_Numbers = np.ndarray[Any, np.dtype[np.float64]]

class Trees:
    def __new__(
        cls,
        n_features: int,
        width: int,
        rounds: bool,
        single: bool,
        missing: float,
        divisor: float,
        arrays: tuple[np.ndarray[Any, Any], ...],
        /,
    ) -> Trees: ...
    def score(self, X: _Numbers, out: _Numbers, /) -> None: ...

def link(scores: _Numbers, which: int, single: bool, /) -> None: ...
